// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The declarations of kqueue that Asio uses, so that Moor can be compiled for it elsewhere. Nothing
// that includes this can be linked.

#ifndef MOOR_TEST_MODES_KQUEUE_SYS_EVENT_H
#define MOOR_TEST_MODES_KQUEUE_SYS_EVENT_H

#include <cstdint>
#include <ctime>

struct kevent {
    std::uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned fflags;
    std::intptr_t data;
    void* udata;
};

extern "C" {
int kqueue();
int kevent(int, const struct kevent*, int, struct kevent*, int, const std::timespec*);
}

enum { EVFILT_READ = -1, EVFILT_WRITE = -2 };
enum { EV_ADD = 1, EV_DELETE = 2, EV_ONESHOT = 16, EV_CLEAR = 32, EV_FLAG1 = 0x2000 };
enum { EV_ERROR = 0x4000, EV_EOF = 0x8000 };

#define EV_SET(event, id, f, fl, ff, d, u)                                                         \
    (*(event) = {static_cast<std::uintptr_t>(id), static_cast<short>(f),                           \
                 static_cast<unsigned short>(fl), static_cast<unsigned>(ff),                       \
                 static_cast<std::intptr_t>(d), (u)})

#endif
