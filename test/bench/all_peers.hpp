//
// test/bench/all_peers.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Everybody, by name. The suffix "_drain" says that a second read finds nothing before the next
// wait; for the others, peers.hpp.
//

#ifndef MOOR_BENCH_ALL_PEERS_HPP
#define MOOR_BENCH_ALL_PEERS_HPP

#include "loops/loops.hpp"
#include "peers.hpp"
#include "ring.hpp"

#include <string>
#include <vector>

namespace bench {

inline const std::vector<peer_entry>& peers() {
    static const std::vector<peer_entry> all = [] {
        std::vector<peer_entry> v;
        v.push_back({"hand", &make_hand<EPOLLET, second_read::no>});
        v.push_back({"hand_drain", &make_hand<EPOLLET, second_read::yes>});
        v.push_back({"hand_level", &make_hand<0, second_read::no>});
        v.push_back({"libuv", &make_libuv});
        v.push_back({"libevent", &make_libevent});
        v.push_back({"libevent_et", &make_libevent_et});
        v.push_back({"libevent_et_drain", &make_libevent_et_drain});
        v.push_back({"libev", &make_libev});
        v.push_back({"tokio", &make_tokio});
        v.push_back({"tokio_drain", &make_tokio_drain});
        add_asio_peers(v);
        return v;
    }();
    return all;
}

/// Null if there is nobody of that name.
inline const peer_entry* find_peer(const std::string& name) {
    for (const peer_entry& p : peers())
        if (p.name == name)
            return &p;
    return nullptr;
}

} // namespace bench

#endif // MOOR_BENCH_ALL_PEERS_HPP
