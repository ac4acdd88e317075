//
// test/bench/idle_memory.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The heap memory of an idle registration: the bytes asked of operator new and not given back, over
// 10,000 handles, without the registration object itself. Prints lines of "NAME BYTES".
//

#include "ring.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include <sys/eventfd.h>

namespace {

std::size_t in_use = 0; // one thread only

constexpr std::size_t header = alignof(std::max_align_t);

void* take(std::size_t n, std::size_t alignment) {
    std::size_t front = std::max(header, alignment);
    std::size_t whole = (front + n + alignment - 1) / alignment * alignment;
    char* p = static_cast<char*>(alignment > header ? std::aligned_alloc(alignment, whole)
                                                    : std::malloc(whole));
    if (!p)
        throw std::bad_alloc();
    in_use += n;
    p += front;
    reinterpret_cast<std::size_t*>(p)[-1] = n;
    return p;
}

void give_back(void* p, std::size_t alignment) noexcept {
    if (!p)
        return;
    in_use -= static_cast<std::size_t*>(p)[-1];
    std::free(static_cast<char*>(p) - std::max(header, alignment));
}

} // namespace

void* operator new(std::size_t n) { return take(n, header); }
void* operator new[](std::size_t n) { return take(n, header); }
void* operator new(std::size_t n, std::align_val_t a) { return take(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return take(n, std::size_t(a)); }
void operator delete(void* p) noexcept { give_back(p, header); }
void operator delete[](void* p) noexcept { give_back(p, header); }
void operator delete(void* p, std::size_t) noexcept { give_back(p, header); }
void operator delete[](void* p, std::size_t) noexcept { give_back(p, header); }
void operator delete(void* p, std::align_val_t a) noexcept { give_back(p, std::size_t(a)); }
void operator delete[](void* p, std::align_val_t a) noexcept { give_back(p, std::size_t(a)); }
void operator delete(void* p, std::size_t, std::align_val_t a) noexcept {
    give_back(p, std::size_t(a));
}
void operator delete[](void* p, std::size_t, std::align_val_t a) noexcept {
    give_back(p, std::size_t(a));
}

namespace {

using namespace bench;
namespace asio = boost::asio;
using boost::system::error_code;
using asio_descriptor = asio::posix::basic_stream_descriptor<asio::any_io_executor>;

constexpr unsigned handles = 10'000;

void print(const char* name, std::size_t bytes) {
    std::printf("%s %.1f\n", name, static_cast<double>(bytes) / handles);
}

/// One wait, on which nothing happens, and which is cancelled again: what stays is the idle state
/// of a handle that is in use.
template <class Object, class Start>
void wait_once(asio::io_context& context, Object& object, Start start) {
    start(object);
    context.restart();
    context.poll();
    object.cancel();
    context.restart();
    context.poll();
}

} // namespace

int main() {
    need_handles(handles);
    // Many numbers of one file: never readable, never read.
    std::vector<int> fds;
    int first = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    expect(first != -1, "eventfd");
    fds.push_back(first);
    while (fds.size() != handles) {
        int fd = ::dup(first);
        expect(fd != -1, "dup");
        fds.push_back(fd);
    }
    auto ignore = [](const error_code&) {};

    std::size_t asio_bytes;
    {
        asio::io_context context;
        std::vector<asio_descriptor> v;
        v.reserve(handles);
        wait_once(context, v.emplace_back(context, ::dup(first)),
                  [&](asio_descriptor& d) { d.async_wait(asio_descriptor::wait_read, ignore); });
        v.clear();
        std::size_t before = in_use;
        for (int fd : fds)
            v.emplace_back(context, fd);
        for (asio_descriptor& d : v)
            wait_once(context, d, [&](asio_descriptor& a) {
                a.async_wait(asio_descriptor::wait_read, ignore);
            });
        asio_bytes = in_use - before;
        print("asio_reactor", asio_bytes);
        for (asio_descriptor& d : v)
            d.release();
    }
    {
        asio::io_context context;
        std::vector<moor::registration> v;
        v.reserve(handles);
        // The service and the recycled memory of one operation are there before.
        {
            int fd = ::dup(first);
            moor::registration r(context, fd);
            wait_once(context, r, [&](moor::registration& m) { m.async_wait_readable(ignore); });
            r.deregister();
            ::close(fd);
        }
        std::size_t before = in_use;
        for (int fd : fds)
            v.emplace_back(context, fd);
        print("moor_before_any_wait", in_use - before);
        for (moor::registration& r : v)
            wait_once(context, r, [&](moor::registration& m) { m.async_wait_readable(ignore); });
        print("moor_after_a_wait", in_use - before);
        print("moor_beyond_asio", in_use - before - asio_bytes);
    }
    std::printf("sizeof_asio_descriptor %zu\nsizeof_moor_registration %zu\n",
                sizeof(asio_descriptor), sizeof(moor::registration));
}
