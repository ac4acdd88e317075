//
// test/bench/competitors/asio_streams.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Streams that answer each other, on the backend that this file is compiled for. Stations come in
// pairs; a station writes to its partner what it reads, and the partner does the same. A read is
// pending on each station; an active pair has one byte under way. A round trip is one
// async_read_some that gets the byte, and one async_write_some that hands it on. (Each byte has its
// own pair, since a terminal delivers late, and bytes that meet stay together.)
//

#include "../sockets.hpp"
#include "../streams.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

namespace bench {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// ---- the handles

enum class kind { pipe, pty, socketpair, tcp };

/// Where a station reads and where it writes; the same handle but for a pipe.
struct station_handles {
    int in;
    int out;
};

void make_pty_pair(int (&fd)[2]) {
    fd[0] = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    char name[64];
    expect(fd[0] != -1 && ::grantpt(fd[0]) == 0 && ::unlockpt(fd[0]) == 0 &&
               ::ptsname_r(fd[0], name, sizeof(name)) == 0,
           "posix_openpt");
    fd[1] = ::open(name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    ::termios t{};
    expect(fd[1] != -1 && ::tcgetattr(fd[1], &t) == 0, "open of a terminal");
    ::cfmakeraw(&t);
    expect(::tcsetattr(fd[1], TCSANOW, &t) == 0, "tcsetattr");
}

/// Non-blocking handles for a number of stations. Stations 2n and 2n + 1 are partners.
class wiring {
public:
    wiring(kind k, unsigned stations) {
        need_handles(2 * std::size_t{stations});
        for (unsigned i = 0; i < stations; i += 2) {
            int a[2];
            int b[2];
            switch (k) {
            case kind::pipe:
                expect(::pipe2(a, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
                expect(::pipe2(b, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
                add({a[0], b[1]});
                add({b[0], a[1]});
                continue;
            case kind::pty:
                make_pty_pair(a);
                break;
            case kind::socketpair:
                make_unix_pair(a);
                break;
            case kind::tcp:
                make_tcp_pair(a);
                break;
            }
            add({a[0], a[0]});
            add({a[1], a[1]});
        }
    }
    ~wiring() {
        for (const station_handles& s : stations_) {
            ::close(s.in);
            if (s.out != s.in)
                ::close(s.out);
        }
    }
    wiring(const wiring&) = delete;
    wiring& operator=(const wiring&) = delete;

    unsigned size() const { return static_cast<unsigned>(stations_.size()); }
    const station_handles& operator[](unsigned i) const { return stations_[i]; }

    /// Sets the bytes off, as if the first station of each of the first pairs had read one.
    void start(unsigned active) const {
        expect(2 * active <= size(), "too many bytes");
        for (unsigned i = 0; i != active; ++i)
            expect(::write(stations_[2 * std::size_t{i}].out, "x", 1) == 1, "write");
    }

private:
    void add(station_handles s) { stations_.push_back(s); }

    std::vector<station_handles> stations_;
};

constexpr std::size_t station_buffer = 64;

// ---- the hand-written loop

/// Knows that one read takes what there is, and that a write finds room.
class hand_written_echo final : public competitor {
public:
    hand_written_echo(kind k, unsigned handles, unsigned active)
        : wiring_(k, handles), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        expect(epoll_ != -1, "epoll_create1");
        for (unsigned i = 0; i != handles; ++i) {
            ::epoll_event e{};
            e.events = EPOLLIN | EPOLLET;
            e.data.u32 = i;
            expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, wiring_[i].in, &e) == 0, "epoll_ctl");
        }
        wiring_.start(active);
    }
    ~hand_written_echo() override { ::close(epoll_); }

    void run(std::uint64_t round_trips) override {
        for (std::uint64_t done = 0; done < round_trips;) {
            ::epoll_event events[128];
            int n = ::epoll_wait(epoll_, events, 128, -1);
            for (int k = 0; k < n; ++k, ++done) {
                char buffer[station_buffer];
                const station_handles& s = wiring_[events[k].data.u32];
                expect(::read(s.in, buffer, sizeof(buffer)) == 1, "read");
                expect(::write(s.out, buffer, 1) == 1, "write");
            }
        }
    }

private:
    wiring wiring_;
    int epoll_;
};

// ---- streams in an io_context

void check(const error_code& ec) {
    if (ec) {
        std::fprintf(stderr, "%s\n", ec.message().c_str());
        std::abort();
    }
}

/// Makes a stream of a handle.
template <class Stream>
struct open {
    static Stream stream(asio::io_context& context, int fd) { return Stream(context, fd); }
};
template <>
struct open<asio::local::stream_protocol::socket> {
    static auto stream(asio::io_context& context, int fd) {
        return asio::local::stream_protocol::socket(context, asio::local::stream_protocol(), fd);
    }
};
template <>
struct open<asio::ip::tcp::socket> {
    static auto stream(asio::io_context& context, int fd) {
        return asio::ip::tcp::socket(context, asio::ip::tcp::v4(), fd);
    }
};

template <class Stream>
class stream_echo final : public competitor {
public:
    stream_echo(kind k, unsigned handles, unsigned active) : wiring_(k, handles) {
        for (unsigned i = 0; i != handles; ++i) {
            const station_handles& s = wiring_[i];
            stations_.emplace_back(open<Stream>::stream(context_, s.in));
            if (s.out != s.in)
                stations_.back().out.emplace(open<Stream>::stream(context_, s.out));
            read(stations_.back());
        }
        context_.poll(); // every read is pending
        wiring_.start(active);
    }
    ~stream_echo() override {
        for (station& s : stations_) {
            s.in.release(); // the wiring owns the handle
            if (s.out)
                s.out->release();
        }
    }

    /// What is under way afterwards goes on in the next run.
    void run(std::uint64_t round_trips) override {
        left_ = round_trips;
        context_.restart();
        context_.run();
        expect(left_ == 0, "the bytes have stopped");
    }

private:
    struct station {
        explicit station(Stream s) : in(std::move(s)) {}

        Stream in;
        std::optional<Stream> out;
        char buffer[station_buffer];
    };

    struct on_read {
        stream_echo* self;
        station* s;

        void operator()(const error_code& ec, std::size_t n) const {
            // Asio's transfers of a terminal on io_uring are interrupted now and then.
            if (ec == asio::error::interrupted)
                return self->read(*s);
            check(ec);
            expect(n == 1, "more than one byte");
            if (--self->left_ == 0)
                self->context_.stop();
            self->write(*s);
        }
    };
    struct on_written {
        stream_echo* self;
        station* s;

        void operator()(const error_code& ec, std::size_t n) const {
            if (ec == asio::error::interrupted)
                return self->write(*s);
            check(ec);
            expect(n == 1, "nothing written");
            self->read(*s);
        }
    };

    void read(station& s) { s.in.async_read_some(asio::buffer(s.buffer), on_read{this, &s}); }
    void write(station& s) {
        Stream& out = s.out ? *s.out : s.in;
        out.async_write_some(asio::buffer(s.buffer, 1), on_written{this, &s});
    }

    wiring wiring_;
    asio::io_context context_;
    std::deque<station> stations_;
    std::uint64_t left_ = 0;
};

// ---- many bytes through a pipe

/// The pipe is filled and emptied at the same time. A round trip here is a block of 64 KiB.
template <class Stream>
class stream_bulk final : public competitor {
public:
    static constexpr std::size_t block = 65536;

    stream_bulk(kind k, unsigned, unsigned)
        : wiring_(k, 2), in_(open<Stream>::stream(context_, wiring_[0].in)),
          out_(open<Stream>::stream(context_, wiring_[1].out)), from_(block, 'x'), to_(block) {
        read();
        write(0);
    }
    ~stream_bulk() override {
        in_.release();
        out_.release();
    }

    void run(std::uint64_t blocks) override {
        left_ += static_cast<std::int64_t>(blocks * block);
        context_.restart();
        context_.run();
        expect(left_ <= 0, "the bytes have stopped");
    }

private:
    struct on_read {
        stream_bulk* self;

        void operator()(const error_code& ec, std::size_t n) const {
            check(ec);
            if ((self->left_ -= static_cast<std::int64_t>(n)) <= 0)
                self->context_.stop();
            self->read();
        }
    };
    struct on_written {
        stream_bulk* self;
        std::size_t offset;

        void operator()(const error_code& ec, std::size_t n) const {
            check(ec);
            self->write((offset + n) % block);
        }
    };

    void read() { in_.async_read_some(asio::buffer(to_), on_read{this}); }
    void write(std::size_t offset) {
        out_.async_write_some(asio::buffer(from_) + offset, on_written{this, offset});
    }

    wiring wiring_;
    asio::io_context context_;
    Stream in_;
    Stream out_;
    std::vector<char> from_;
    std::vector<char> to_;
    std::int64_t left_ = 0;
};

// ---- all of them

template <class Competitor>
stream_entry entry_of(const char* name, kind k, bool bulk = false) {
    return {name,
            [k](unsigned handles, unsigned active) -> std::unique_ptr<competitor> {
                return std::make_unique<Competitor>(k, handles, active);
            },
            bulk};
}

} // namespace

const std::vector<stream_entry>& stream_competitors() {
    using asio_stream = asio::posix::stream_descriptor;
    using moor_stream = moor::stream_descriptor;
    using unix_socket = asio::local::stream_protocol::socket;
    using tcp_socket = asio::ip::tcp::socket;
    static const std::vector<stream_entry> all = {
        entry_of<hand_written_echo>("pipe/hand", kind::pipe),
        entry_of<stream_echo<asio_stream>>("pipe/asio", kind::pipe),
        entry_of<stream_echo<moor_stream>>("pipe/moor", kind::pipe),
        entry_of<stream_echo<asio_stream>>("pty/asio", kind::pty),
        entry_of<stream_echo<moor_stream>>("pty/moor", kind::pty),
        entry_of<stream_echo<asio_stream>>("socketpair/asio", kind::socketpair),
        entry_of<stream_echo<unix_socket>>("socketpair/asio_socket", kind::socketpair),
        entry_of<stream_echo<moor_stream>>("socketpair/moor", kind::socketpair),
        entry_of<stream_echo<asio_stream>>("tcp/asio", kind::tcp),
        entry_of<stream_echo<tcp_socket>>("tcp/asio_socket", kind::tcp),
        entry_of<stream_echo<moor_stream>>("tcp/moor", kind::tcp),
        entry_of<stream_bulk<asio_stream>>("bulk/asio", kind::pipe, true),
        entry_of<stream_bulk<moor_stream>>("bulk/moor", kind::pipe, true),
    };
    return all;
}

} // namespace bench
