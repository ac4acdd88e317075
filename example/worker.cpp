//
// worker.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A worker of ZeroMQ: receives tasks, and sends results. The tasks come from a thread of this
// program, which uses the blocking functions of libzmq, as another program would:
//
//     example/run.sh worker
//
// With endpoints, the program waits for tasks of other programs, until SIGINT or SIGTERM:
//
//     g++ -std=c++20 -I../include worker.cpp -pthread -lzmq
//     ./a.out tcp://127.0.0.1:5557 tcp://127.0.0.1:5558
//
// doc/adapt-zmq.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/zmq.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <zmq.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;

namespace {

long primes_below(long n) {
    long count = 0;
    for (long i = 2; i < n; ++i) {
        bool is_prime = true;
        for (long d = 2; is_prime && d * d <= i; ++d)
            is_prime = i % d != 0;
        count += is_prime;
    }
    return count;
}

//[work
/// Works until an empty task, or the end of the context of libzmq.
asio::awaitable<void> work(adapt::zeromq_socket tasks, adapt::zeromq_socket results) {
    for (;;) {
        adapt::zeromq_message task = co_await tasks.async_receive(use_awaitable);
        const std::string number(task.back().view());
        if (number.empty())
            co_return;
        const std::string count = std::to_string(primes_below(std::atol(number.c_str())));
        adapt::zeromq_message result(number, count); // two parts
        co_await results.async_send(std::move(result), use_awaitable);
    }
}
//]

//[connect
/// Makes a socket, and connects it.
adapt::zeromq_handle connected(void* zmq, int type, const char* endpoint) {
    adapt::zeromq_handle s(zmq_socket(zmq, type));
    const int linger = 1000; // ms in which zmq_ctx_term() waits for messages that are not sent yet
    if (!s || zmq_setsockopt(s.get(), ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
        zmq_connect(s.get(), endpoint) != 0)
        throw std::runtime_error(endpoint + std::string(": ") + zmq_strerror(zmq_errno()));
    return s;
}
//]

/// The other program: sends the tasks, and prints the results.
void give_tasks(void* zmq, const char* tasks, const char* results) {
    const adapt::zeromq_handle to(zmq_socket(zmq, ZMQ_PUSH)), from(zmq_socket(zmq, ZMQ_PULL));
    if (zmq_bind(to.get(), tasks) != 0 || zmq_bind(from.get(), results) != 0)
        return;
    for (const char* number : {"10", "100", "1000", "10000", "100000"})
        zmq_send(to.get(), number, std::char_traits<char>::length(number), 0);
    for (int i = 0; i != 5; ++i) {
        adapt::zeromq_part number, count;
        if (zmq_msg_recv(number.native_handle(), from.get(), 0) < 0 ||
            zmq_msg_recv(count.native_handle(), from.get(), 0) < 0)
            return;
        std::cout << count.view() << " primes below " << number.view() << std::endl;
    }
    zmq_send(to.get(), "", 0, 0);
}

} // namespace

int main(int argc, char** argv) {
    const bool is_alone = argc < 3;
    const char* const from = is_alone ? "inproc://tasks" : argv[1];
    const char* const to = is_alone ? "inproc://results" : argv[2];
    try {
        //[main
        // Destroyed last: zmq_ctx_term() blocks until all sockets are closed.
        const std::unique_ptr<void, int (*)(void*)> zmq(zmq_ctx_new(), &zmq_ctx_term);
        asio::io_context io;
        adapt::zeromq_socket tasks(io, connected(zmq.get(), ZMQ_PULL, from));
        adapt::zeromq_socket results(io, connected(zmq.get(), ZMQ_PUSH, to));
        asio::co_spawn(io, work(std::move(tasks), std::move(results)), [&](std::exception_ptr e) {
            io.stop();
            if (e)
                std::rethrow_exception(e);
        });
        //]
        asio::signal_set signals(io, SIGINT, SIGTERM);
        signals.async_wait([&](moor::error_code, int) { io.stop(); });
        std::thread other;
        if (is_alone)
            other = std::thread(&give_tasks, zmq.get(), from, to);
        io.run();
        if (other.joinable()) {
            zmq_ctx_shutdown(zmq.get()); // if a signal was the reason, ends its calls, too
            other.join();
        }
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
