//
// test/bench/competitors/libuv_echo.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The echo server on libuv's streams.
//

#include "../echo.hpp"
#include "../ring.hpp"

#include <cstdlib>
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

    /// The bytes of one read, until they are written.
    struct block {
        ::uv_write_t write;
        char bytes[echo_buffer];
    };

    static void allocate(::uv_handle_t*, std::size_t, ::uv_buf_t* buffer) {
        auto* b = static_cast<block*>(std::malloc(sizeof(block)));
        expect(b != nullptr, "malloc");
        *buffer = ::uv_buf_init(b->bytes, sizeof(b->bytes));
    }

    static block* block_of(char* bytes) {
        return reinterpret_cast<block*>(bytes - offsetof(block, bytes));
    }

    static void on_read(::uv_stream_t* stream, ssize_t n, const ::uv_buf_t* buffer) {
        block* b = buffer->base ? block_of(buffer->base) : nullptr;
        if (n > 0) {
            ::uv_buf_t answer = ::uv_buf_init(b->bytes, static_cast<unsigned>(n));
            b->write.data = b;
            expect(::uv_write(&b->write, stream, &answer, 1, &on_written) == 0, "uv_write");
            return;
        }
        std::free(b);
        if (n < 0)
            ::uv_close(reinterpret_cast<::uv_handle_t*>(stream), nullptr);
    }

    static void on_written(::uv_write_t* write, int status) {
        expect(status == 0, "uv_write");
        std::free(write->data);
    }

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
