//
// test/bench/adapters/zmq.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Messages of 100 bytes of ZeroMQ, over tcp and inproc: sent with PUSH, received with PULL, and
// round trips of REQ. The peer is the same in both ways: a thread that uses the blocking functions,
// and sends, receives or answers as fast as it can. The library's own use: zmq_send and zmq_recv,
// which block.
//

#include "bench.hpp"

#include <moor/adapt/zmq.hpp>

#include <boost/asio/io_context.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <zmq.h>

namespace {

namespace adapt = moor::adapt;
constexpr std::size_t size = 100;
constexpr std::uint64_t messages = 1000;
const std::string text(size, 'x');

/// A peer in a thread, and a socket that is connected to the peer.
class sockets {
public:
    sockets(int type, int peer_type, const std::string& transport)
        : handle(make(type)), peer_(make(peer_type)) {
        const bool is_tcp = transport == "tcp";
        bench::check(zmq_bind(peer_.get(), is_tcp ? "tcp://127.0.0.1:*" : "inproc://bench") == 0,
                     "no address");
        char address[256];
        std::size_t length = sizeof(address);
        zmq_getsockopt(peer_.get(), ZMQ_LAST_ENDPOINT, address, &length);
        bench::check(zmq_connect(handle.get(), address) == 0, "no connection");
        thread_ = std::thread([this, peer_type] {
            char buffer[size];
            // Until the context is shut down.
            while ((peer_type == ZMQ_PUSH || zmq_recv(peer_.get(), buffer, size, 0) >= 0) &&
                   (peer_type == ZMQ_PULL || zmq_send(peer_.get(), text.data(), size, 0) >= 0)) {}
            peer_.reset();
        });
    }

    ~sockets() {
        zmq_ctx_shutdown(context_.get());
        thread_.join();
    }

private:
    adapt::zeromq_handle make(int type) {
        adapt::zeromq_handle s(zmq_socket(context_.get(), type));
        const int linger = 0;
        bench::check(s && zmq_setsockopt(s.get(), ZMQ_LINGER, &linger, sizeof(linger)) == 0,
                     "no socket");
        return s;
    }

    std::unique_ptr<void, int (*)(void*)> context_{zmq_ctx_new(), &zmq_ctx_term};

public:
    adapt::zeromq_handle handle;

private:
    adapt::zeromq_handle peer_; // the thread's
    std::thread thread_;
};

int other_end(int type) {
    return type == ZMQ_PUSH ? ZMQ_PULL : type == ZMQ_PULL ? ZMQ_PUSH : ZMQ_REP;
}

struct asynchronous {
    sockets both;
    bool sends, receives;
    boost::asio::io_context io{1};
    adapt::zeromq_socket socket{io, both.handle.get()}; // borrowed
    std::uint64_t left = 0;

    asynchronous(int type, const char* transport)
        : both(type, other_end(type), transport), sends(type != ZMQ_PULL),
          receives(type != ZMQ_PUSH) {}

    void next() {
        if (!sends)
            return receive();
        socket.async_send(text, [this](moor::error_code ec) {
            bench::check(!ec, "not sent");
            if (receives)
                receive();
            else if (--left != 0)
                next();
        });
    }

    void receive() {
        socket.async_receive([this](moor::error_code ec, const adapt::zeromq_message& m) {
            bench::check(!ec && m.size() == 1 && m[0].view() == text, "wrong message");
            if (--left != 0)
                next();
        });
    }

    void run(std::uint64_t times) {
        left = times;
        next();
        io.restart();
        io.run();
        bench::check(left == 0, "not all completed");
    }
};

std::function<bench::work()> with_moor(int type, const char* transport) {
    return [=]() -> bench::work {
        return [a = std::make_shared<asynchronous>(type, transport)](std::uint64_t times) {
            a->run(times);
        };
    };
}

std::function<bench::work()> blocking(int type, const char* transport) {
    return [=]() -> bench::work {
        auto both = std::make_shared<sockets>(type, other_end(type), transport);
        return [both, type](std::uint64_t times) {
            char buffer[size];
            for (std::uint64_t i = 0; i != times; ++i) {
                if (type != ZMQ_PULL)
                    bench::check(zmq_send(both->handle.get(), text.data(), size, 0) == int(size),
                                 "not sent");
                if (type != ZMQ_PUSH)
                    bench::check(zmq_recv(both->handle.get(), buffer, size, 0) == int(size) &&
                                     text.compare(0, size, buffer, size) == 0,
                                 "wrong message");
            }
        };
    };
}

} // namespace

int main(int argc, char** argv) {
    std::vector<bench::entry> entries;
    for (const char* transport : {"tcp", "inproc"})
        for (const auto& [name, type, batch] :
             {std::tuple("push", ZMQ_PUSH, messages), std::tuple("pull", ZMQ_PULL, messages),
              std::tuple("req", ZMQ_REQ, std::uint64_t(10))}) {
            const std::string workload = std::string(name) + "-" + transport;
            entries.push_back({workload, "zmq", blocking(type, transport), batch});
            entries.push_back({workload, "moor", with_moor(type, transport), batch});
        }
    return bench::main_of(entries, argc, argv);
}
