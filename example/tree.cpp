//
// tree.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Prints what changes in a directory and in everything below it, until it is interrupted:
//
//     example/run.sh tree DIRECTORY
//
// Without an argument, the program makes a directory of its own, changes a few things in it, and
// ends when all is told.
//
// doc/adapt-inotify.adoc shows the parts between the markers.
//

#include <moor/adapt/inotify.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <system_error>

#include <unistd.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
namespace fs = std::filesystem;
using asio::use_awaitable;

namespace {

/// Makes changes in a directory of its own, which is deleted at the end.
class demonstration {
public:
    demonstration() {
        std::string name = fs::temp_directory_path() / "tree.XXXXXX";
        if (!mkdtemp(name.data()))
            throw std::runtime_error("no temporary directory");
        root_ = name;
        fs::create_directories(root_ / "old/deep");
    }
    ~demonstration() {
        std::error_code ignored;
        fs::remove_all(root_, ignored);
    }

    static constexpr const char* last = "new/deep/deeper/file"; // the last that is told

    const fs::path& root() const { return root_; }

    void act() {
        fs::create_directories((root_ / last).parent_path()); // before "new" can be watched
        std::ofstream(root_ / last) << "text";
        fs::rename(root_ / "old", root_ / "older");
        fs::remove(root_ / "older/deep");
    }

private:
    fs::path root_;
};

//[show
void show(const adapt::inotify_change& c) {
    const char* const slash = c.is_directory ? "/" : "";
    switch (c.kind) {
    case adapt::inotify_kind::found:
        break; // was there before
    case adapt::inotify_kind::created:
        std::cout << "+ " << c.path.native() << slash << std::endl;
        break;
    case adapt::inotify_kind::removed: // with all below it
        std::cout << "- " << c.path.native() << slash << std::endl;
        break;
    case adapt::inotify_kind::moved: // with all below it
        std::cout << "> " << c.from.native() << " -> " << c.path.native() << slash << std::endl;
        break;
    case adapt::inotify_kind::written:
    case adapt::inotify_kind::modified:
    case adapt::inotify_kind::attributes:
        std::cout << "* " << c.path.native() << slash << std::endl;
        break;
    case adapt::inotify_kind::unwatched:
        std::cout << "! " << c.path.native() << ": " << c.error.message() << std::endl;
        break;
    case adapt::inotify_kind::overflow:
        std::cout << "events were lost: reading the tree again" << std::endl;
        break;
    case adapt::inotify_kind::ready:
        std::cout << "watching" << std::endl;
        break;
    }
}
//]

//[watch
asio::awaitable<void> watch(adapt::inotify_tree& tree, demonstration* demo) {
    for (;;)
        for (const adapt::inotify_change& c : co_await tree.async_read_changes(use_awaitable)) {
            show(c);
            if (demo && c.kind == adapt::inotify_kind::ready)
                demo->act();
            if (demo && c.path == demo->last)
                co_return;
        }
}
//]

int run(const fs::path& root, demonstration* demo) {
    asio::io_context io;
    adapt::inotify_tree tree(io, root);
    asio::signal_set signals(io, SIGINT, SIGTERM);
    signals.async_wait([&](moor::error_code, int) { io.stop(); });
    asio::co_spawn(io, watch(tree, demo), [&](std::exception_ptr e) {
        io.stop(); // no signal may come
        if (e)
            std::rethrow_exception(e);
    });
    io.run();
    return EXIT_SUCCESS;
}

} // namespace

int main(int argc, char** argv) {
    try {
        if (argc > 1)
            return run(argv[1], nullptr);
        demonstration demo;
        return run(demo.root(), &demo);
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
