//
// two_shapes.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Two small libraries, which stand for two shapes of C libraries. One pushes: it calls back to say
// what to watch (libcurl, c-ares, hiredis). The other has to be asked what it waits for (libpq,
// sd-bus, mosquitto). Copy the lines between the markers.
//

#include <moor.hpp>

#include <boost/asio/io_context.hpp>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// ---- a library that pushes ----------------------------------------------------------------------

/// Sends a text to itself through a pipe. Both descriptors come and go.
class pushing_library {
public:
    // "Please call act(fd) for these events of poll(2)"; no events: "and no more".
    std::function<void(int fd, short events)> watch;
    std::function<void(std::string)> done;

    void start(std::string text) {
        text_ = std::move(text);
        if (::pipe2(ends_, O_NONBLOCK | O_CLOEXEC) == 0)
            watch(ends_[1], POLLOUT);
    }
    void act(int fd) {
        char byte;
        if (fd == ends_[1] && sent_ != text_.size())
            sent_ += ::write(fd, &text_[sent_], 1) == 1;
        else if (ssize_t n = fd == ends_[1] ? 0 : ::read(fd, &byte, 1); n > 0)
            received_ += byte;
        else if (n == 0 || errno != EAGAIN)
            finish(fd);
    }

private:
    void finish(int fd) {
        watch(fd, 0); // no more events: the descriptor is about to be closed
        ::close(fd);
        fd == ends_[1] ? watch(ends_[0], POLLIN) : done(received_);
    }

    std::string text_, received_;
    std::size_t sent_ = 0;
    int ends_[2];
};

//[pushes
/// Keeps one watcher for each descriptor of the library.
class pusher {
public:
    explicit pusher(asio::io_context& io) : io_(io) {
        library_.watch = [this](int fd, short events) { watch(fd, events); };
    }

    pushing_library& library() { return library_; }

private:
    void watch(int fd, short events) {
        if (events == 0) { // the library closes fd next
            watchers_.erase(fd);
            return;
        }
        moor::watcher& w = watchers_.try_emplace(fd, io_).first->second;
        w.on_event([this, fd](moor::error_code, moor::readiness) { library_.act(fd); });
        w.renew(fd);
        moor::interest want;
        if (events & POLLIN)
            want |= moor::interest::readable;
        if (events & POLLOUT)
            want |= moor::interest::writable;
        w.set_interest(want);
    }

    asio::io_context& io_;
    pushing_library library_;
    std::map<int, moor::watcher> watchers_; // end before the library
};
//]

// ---- a library that has to be asked -------------------------------------------------------------

/// Every 10 ms a heart beats, through a new pipe each time; three beats.
class asking_library {
public:
    using clock = std::chrono::steady_clock;

    int fd() const { return fd_; } // -1: none
    short events() const { return fd_ < 0 ? 0 : POLLIN; }
    clock::time_point deadline() const {
        return fd_ < 0 && beats_ < 3 ? next_ : clock::time_point::max();
    }
    int beats() const { return beats_; }

    void work() {
        char byte;
        int ends[2];
        if (fd_ >= 0 && ::read(fd_, &byte, 1) == 1) {
            ++beats_;
            next_ = clock::now() + 10ms;
            ::close(std::exchange(fd_, -1));
        } else if (fd_ < 0 && beats_ < 3 && clock::now() >= next_ &&
                   ::pipe2(ends, O_NONBLOCK) == 0) {
            fd_ = ::write(ends[1], "!", 1) == 1 ? ends[0] : -1;
            ::close(ends[1]);
        }
    }

private:
    int fd_ = -1, beats_ = 0;
    clock::time_point next_ = clock::now() + 10ms;
};

//[asks
/// Asks the library before each wait, and lets the library work after it.
moor::source run(asio::io_context& io, asking_library& library) {
    auto prepare = [&library] {
        moor::wants w;
        w.fd = library.fd(); // may be another one each time, or none
        if (library.events() & POLLIN)
            w.events |= moor::interest::readable;
        if (library.events() & POLLOUT)
            w.events |= moor::interest::writable;
        if (library.deadline() != asking_library::clock::time_point::max())
            w.until = library.deadline();
        return w;
    };
    auto dispatch = [&library](moor::error_code, moor::readiness) { library.work(); };
    return moor::source(io, prepare, dispatch);
}
//]

} // namespace

int main() {
    asio::io_context io;

    std::string received;
    pusher p(io);
    p.library().done = [&](std::string text) {
        received = std::move(text);
        std::cout << "the library that pushes: " << received << '\n';
    };
    p.library().start("a text through a pipe");

    asking_library heart;
    moor::source s = run(io, heart);

    io.run();
    std::cout << "the library that has to be asked: " << heart.beats() << " beats\n";
    return received == "a text through a pipe" && heart.beats() == 3 ? EXIT_SUCCESS : EXIT_FAILURE;
}
