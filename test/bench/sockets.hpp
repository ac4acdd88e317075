//
// test/bench/sockets.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Connected sockets that do not block.
//

#ifndef MOOR_BENCH_SOCKETS_HPP
#define MOOR_BENCH_SOCKETS_HPP

#include "ring.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

namespace bench {

inline void make_unix_pair(int (&fd)[2]) {
    expect(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0,
           "socketpair");
}

/// Over the loopback interface.
inline void make_tcp_pair(int (&fd)[2]) {
    int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::socklen_t length = sizeof(address);
    auto* a = reinterpret_cast<::sockaddr*>(&address);
    expect(::bind(listener, a, length) == 0 && ::listen(listener, 1) == 0 &&
               ::getsockname(listener, a, &length) == 0,
           "listen");
    fd[0] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(::connect(fd[0], a, length) == 0, "connect");
    fd[1] = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    expect(fd[1] != -1, "accept4");
    ::close(listener);
    for (int f : fd) {
        int on = 1;
        expect(::setsockopt(f, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
        expect(::fcntl(f, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
    }
}

} // namespace bench

#endif // MOOR_BENCH_SOCKETS_HPP
