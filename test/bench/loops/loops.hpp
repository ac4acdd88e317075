//
// test/bench/loops/loops.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Event loops that know nothing of Asio, each as its own documentation has it: a watcher a handle
// that stays (libuv's uv_poll_start, libevent's EV_PERSIST, libev's ev_io), and for Tokio a task a
// handle round AsyncFd::readable(). All on the thread that runs the loop. Each has a source file of
// its own, since the headers of libev and libevent define the same names.
//

#ifndef MOOR_BENCH_LOOPS_LOOPS_HPP
#define MOOR_BENCH_LOOPS_LOOPS_HPP

#include "../ring.hpp"

#include <memory>

namespace bench {

std::unique_ptr<peer> make_libuv(const workload& w);
std::unique_ptr<peer> make_libevent(const workload& w);
std::unique_ptr<peer> make_libevent_et(const workload& w);
std::unique_ptr<peer> make_libevent_et_drain(const workload& w);
std::unique_ptr<peer> make_libev(const workload& w);
std::unique_ptr<peer> make_tokio(const workload& w);
std::unique_ptr<peer> make_tokio_drain(const workload& w);

} // namespace bench

#endif // MOOR_BENCH_LOOPS_LOOPS_HPP
