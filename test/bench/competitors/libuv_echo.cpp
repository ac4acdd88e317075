//
// test/bench/competitors/libuv_echo.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The echo server on libuv's streams.
//

#include "../echo.hpp"
#include "../ring.hpp"

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include <uv.h>

namespace bench {
namespace {

class libuv_server final : public echo_server {
public:
    libuv_server(connection_kind kind, const std::vector<int>& connections) {
        expect(::uv_loop_init(&loop_) == 0, "uv_loop_init");
        for (int fd : connections) {
            handle& h = handles_.emplace_back();
            if (kind == connection_kind::tcp)
                expect(::uv_tcp_init(&loop_, &h.tcp) == 0 && ::uv_tcp_open(&h.tcp, fd) == 0,
                       "uv_tcp_open");
            else
                expect(::uv_pipe_init(&loop_, &h.pipe, 0) == 0 && ::uv_pipe_open(&h.pipe, fd) == 0,
                       "uv_pipe_open");
            h.stream.data = this;
            expect(::uv_read_start(&h.stream, &allocate, &on_read) == 0, "uv_read_start");
        }
    }
    ~libuv_server() override { expect(::uv_loop_close(&loop_) == 0, "uv_loop_close"); }

    void run() override { ::uv_run(&loop_, UV_RUN_DEFAULT); }

private:
    union handle {
        ::uv_stream_t stream;
        ::uv_tcp_t tcp;
        ::uv_pipe_t pipe;
    };

    /// The bytes of one read, until they are written. A block is used again afterwards.
    struct block {
        ::uv_write_t write;
        char bytes[echo_buffer];
    };

    template <class Handle>
    static libuv_server& of(Handle* h) {
        return *static_cast<libuv_server*>(h->data);
    }

    static void allocate(::uv_handle_t* h, std::size_t, ::uv_buf_t* buffer) {
        libuv_server& self = of(h);
        if (self.free_.empty())
            self.free_.push_back(&self.blocks_.emplace_back());
        *buffer = ::uv_buf_init(self.free_.back()->bytes, echo_buffer);
    }

    /// The block that was the last of the free ones.
    static void on_read(::uv_stream_t* stream, ssize_t n, const ::uv_buf_t*) {
        libuv_server& self = of(stream);
        if (n > 0) {
            block* b = self.free_.back();
            self.free_.pop_back();
            ::uv_buf_t answer = ::uv_buf_init(b->bytes, static_cast<unsigned>(n));
            b->write.data = b;
            expect(::uv_write(&b->write, stream, &answer, 1, &on_written) == 0, "uv_write");
        } else if (n < 0) {
            ::uv_close(reinterpret_cast<::uv_handle_t*>(stream), nullptr);
        }
    }

    static void on_written(::uv_write_t* write, int status) {
        expect(status == 0, "uv_write");
        of(write->handle).free_.push_back(static_cast<block*>(write->data));
    }

    std::deque<block> blocks_;
    std::vector<block*> free_;
    ::uv_loop_t loop_;
    std::deque<handle> handles_;
};

const added_servers libuv({{"libuv", true,
                            [](connection_kind kind, const std::vector<int>& connections)
                                -> std::unique_ptr<echo_server> {
                                return std::make_unique<libuv_server>(kind, connections);
                            }}});

} // namespace
} // namespace bench
