//
// child.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Runs programs, takes their output, and kills the program that takes too long. Copy the lines
// between the markers. moor::process waits for one process ID only: the program needs no handler
// for SIGCHLD, and other children are not reaped.
//

#include <moor.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <spawn.h>
#include <sys/types.h>
#include <unistd.h>

namespace asio = boost::asio;
using asio::awaitable;
using asio::use_awaitable;
using namespace std::chrono_literals;

namespace {

//[spawn
struct spawned {
    ::pid_t pid;
    int output; // the reading end of a pipe
};

/// Starts a program whose standard output is a pipe.
spawned spawn(std::vector<std::string> words) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
        throw std::system_error(errno, std::generic_category(), "pipe2");
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::vector<char*> arguments;
    for (std::string& word : words)
        arguments.push_back(word.data());
    arguments.push_back(nullptr);
    spawned child = {-1, ends[0]};
    int error =
        ::posix_spawnp(&child.pid, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    if (error != 0) {
        ::close(ends[0]);
        throw std::system_error(error, std::generic_category(), words[0]);
    }
    return child;
}
//]

//[child
struct outcome {
    moor::exit_status status;
    std::string output;
    bool in_time = true;
};

/// Reads until the child, and whoever has the pipe from it, has closed the pipe.
awaitable<void> read_all(moor::stream_descriptor& pipe, std::string& text) {
    moor::error_code ec;
    co_await asio::async_read(pipe, asio::dynamic_buffer(text),
                              asio::redirect_error(use_awaitable, ec));
    if (ec != asio::error::eof)
        throw std::system_error(ec);
}

/// Runs a program to its end, or kills the program after the time limit.
awaitable<outcome> run(asio::io_context& io, std::vector<std::string> words,
                       std::chrono::milliseconds limit) {
    using namespace asio::experimental::awaitable_operators;
    spawned started = spawn(std::move(words));
    moor::process child(io, started.pid);
    moor::stream_descriptor pipe(io, started.output); // owns the pipe
    asio::steady_timer deadline(io, limit);

    outcome result;
    auto first = co_await ((read_all(pipe, result.output) && child.async_wait(use_awaitable)) ||
                           deadline.async_wait(use_awaitable));
    if (first.index() == 1) {
        result.in_time = false;
        moor::error_code ended; // or the child has ended, and a child of its own has the pipe
        child.kill(SIGKILL, ended);
    }
    result.status = co_await child.async_wait(use_awaitable); // reaps; remembers the status
    co_return result;
}
//]

/// Whether the program ended as expected.
bool show(const std::string& name, std::vector<std::string> words, std::chrono::milliseconds limit,
          const std::string& expected) {
    asio::io_context io;
    std::ostringstream text;
    asio::co_spawn(io, run(io, std::move(words), limit),
                   [&](std::exception_ptr e, const outcome& o) {
                       try {
                           if (e)
                               std::rethrow_exception(e);
                           text << o.status << (o.in_time ? "" : " after the time limit")
                                << ", output \"" << o.output << '"';
                       } catch (const std::exception& failure) {
                           text << failure.what();
                       }
                   });
    io.run();
    std::cout << name << ": " << text.str() << '\n';
    return text.str().rfind(expected, 0) == 0;
}

} // namespace

int main() {
    bool good = show("a child with output", {"sh", "-c", "printf 'some text'; exit 3"}, 60s,
                     "exited with 3, output \"some text\"");
    good &= show("a child that takes too long", {"sleep", "1000"}, 100ms, "killed by signal 9");
    good &= show("no such program", {"/nowhere/to/be/found"}, 60s, "/nowhere");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
