// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for inotify, with directories of its own. The random programs change a tree while it
// is watched; a failure names its seed, which MOOR_TEST_SEED repeats, and MOOR_TEST_PROGRAMS says
// how many there are.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/dice.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/quiet.hpp"
#include "support/random.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/inotify.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

/// After so many, the kernel has no watch left.
std::atomic<int> watches_left{-1};

/// The user has as many descriptors of inotify as the kernel allows.
bool has_instances = true;

/// Called before a watch is added and after it, in the test that has set it.
std::function<void()> beside_watches;

} // namespace

// In place of the C library's.
extern "C" int inotify_init1(int flags) noexcept {
    if (has_instances)
        return static_cast<int>(::syscall(SYS_inotify_init1, flags));
    errno = EMFILE;
    return -1;
}
extern "C" int inotify_add_watch(int fd, const char* path, std::uint32_t mask) noexcept {
    if (watches_left == 0) {
        errno = ENOSPC;
        return -1;
    }
    if (beside_watches)
        beside_watches();
    const long watch = ::syscall(SYS_inotify_add_watch, fd, path, mask);
    if (watch >= 0 && beside_watches)
        beside_watches();
    if (watches_left > 0)
        --watches_left;
    return static_cast<int>(watch);
}

BOOST_AUTO_TEST_SUITE(inotify)

namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using moor::adapt::inotify_change;
using moor::adapt::inotify_error;
using moor::adapt::inotify_event;
using moor::adapt::inotify_kind;
using moor::adapt::inotify_tree;
using moor::adapt::detail::decode_inotify_events;
using moor::adapt::detail::inotify_model;
using test::called_with;
using test::error_code;
using raw_inotify = moor::adapt::inotify;
using events = std::vector<inotify_event>;
using changes = std::vector<inotify_change>;
using strings = std::vector<std::string>;
using namespace std::chrono_literals;

const error_code root_gone(inotify_error::root_gone);
const error_code watch_limit(inotify_error::watch_limit);
const error_code bad_event(inotify_error::bad_event);

/// Whether nothing is to be told until the disk changes.
bool is_quiet(const inotify_model& m) {
    int bytes = 0;
    if (m.has_more()) // perhaps it has not begun
        return false;
    BOOST_REQUIRE(::ioctl(m.native_handle(), FIONREAD, &bytes) == 0);
    return bytes == 0;
}

error_code error_of(int number) { return {number, boost::system::system_category()}; }

/// The process can open n descriptors more.
class few_descriptors {
public:
    explicit few_descriptors(::rlim_t n) {
        BOOST_REQUIRE_EQUAL(::getrlimit(RLIMIT_NOFILE, &before_), 0);
        test::unique_fd first(::fcntl(0, F_DUPFD_CLOEXEC, 0));
        ::rlimit limit = before_;
        limit.rlim_cur = static_cast<::rlim_t>(first.get()) + n;
        BOOST_REQUIRE_EQUAL(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    ~few_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

private:
    ::rlimit before_{};
};

/// A directory that is deleted at the end.
class directory {
public:
    directory() {
        const bool has_memory = !std::getenv("TMPDIR") && ::access("/dev/shm", W_OK) == 0;
        std::string name =
            (has_memory ? "/dev/shm" : fs::temp_directory_path()) / "moor-inotify.XXXXXX";
        BOOST_REQUIRE(::mkdtemp(name.data()));
        path_ = name;
        fs::permissions(path_, fs::perms(0755));
    }
    ~directory() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    directory(const directory&) = delete;
    directory& operator=(const directory&) = delete;

    const fs::path& path() const { return path_; }
    fs::path operator/(const fs::path& name) const { return path_ / name; }

private:
    fs::path path_;
};

void write(const fs::path& file, const std::string& text = "x") {
    std::ofstream out(file, std::ios::app);
    out << text;
    BOOST_REQUIRE(out.flush());
}

void exchange(const fs::path& a, const fs::path& b) {
    BOOST_REQUIRE_EQUAL(::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE), 0);
}

const char* name_of(inotify_kind k) {
    static constexpr const char* names[] = {"found",    "created",  "removed",    "moved",
                                            "written",  "modified", "attributes", "unwatched",
                                            "overflow", "ready"};
    return names[static_cast<int>(k)];
}

/// Such as "moved a/ -> b/".
std::string text(const inotify_change& c) {
    std::string s = name_of(c.kind);
    const char* const end = c.is_directory ? "/" : "";
    if (!c.from.empty())
        s += ' ' + c.from.string() + end + " ->";
    if (!c.path.empty())
        s += ' ' + c.path.string() + end;
    if (c.error)
        s += ": " + std::to_string(c.error.value());
    return s;
}
strings texts(const changes& v) {
    strings s;
    for (const inotify_change& c : v)
        s.push_back(text(c));
    return s;
}

void check_equal(const strings& a, const strings& b) {
    BOOST_CHECK_EQUAL_COLLECTIONS(a.begin(), a.end(), b.begin(), b.end());
}
strings sorted(strings s) {
    std::sort(s.begin(), s.end());
    return s;
}

struct loop : test::context_fixture {
    directory dir;
    long descriptors = 0;

    loop() {
        // The reactor's descriptors belong to the context.
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        test::run_all(io);
        descriptors = test::open_descriptors();
    }
    ~loop() { BOOST_TEST(test::open_descriptors() == descriptors); }

    template <class Value, class Start>
    called_with<Value> run(Start start) {
        called_with<Value> o;
        start(o.handler());
        BOOST_TEST(o.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Inotify>
    events read(Inotify& i) {
        auto o = run<events>([&](auto h) { i.async_read_events(std::move(h)); });
        BOOST_CHECK_EQUAL(o.ec, error_code());
        return o.value;
    }
    template <class Tree>
    called_with<changes> read_changes(Tree& t) {
        return run<changes>([&](auto h) { t.async_read_changes(std::move(h)); });
    }
};

/// A tree, and the changes that it tells.
struct watched : loop {
    std::optional<inotify_tree> tree;
    strings told;
    error_code failure;
    bool is_reading = false;

    ~watched() { close(); }

    void watch(std::uint32_t also = IN_CLOSE_WRITE) { tree.emplace(io, dir / "root", also); }

    void close() {
        tree.reset();
        test::run_all(io);
    }

    void go_on() {
        if (std::exchange(is_reading, true))
            return;
        tree->async_read_changes([this](error_code ec, const changes& v) {
            is_reading = false;
            for (const inotify_change& c : v)
                told.push_back(text(c));
            failure = ec;
            if (!ec)
                go_on();
        });
    }

    /// All that is to be told now.
    strings now() {
        go_on();
        test::run_ready(io);
        return std::exchange(told, strings());
    }

    void check_now(const strings& expected) {
        check_equal(now(), expected);
        BOOST_CHECK_EQUAL(failure, error_code());
    }

    fs::path root(const fs::path& name) const { return dir / "root" / name; }
};

struct watched_root : watched {
    watched_root() {
        fs::create_directory(dir / "root");
        fs::create_directory(dir / "outside");
    }
};

/// A tree of which nothing is there yet but the root.
struct watched_tree : watched_root {
    watched_tree() {
        watch();
        check_now({"ready"});
    }
};

} // namespace

// ---- the decoder --------------------------------------------------------------------------------

namespace {

std::string encoded(int watch, std::uint32_t mask, std::uint32_t cookie, const std::string& name,
                    std::size_t padded) {
    struct ::inotify_event head {};
    head.wd = watch;
    head.mask = mask;
    head.cookie = cookie;
    head.len = static_cast<std::uint32_t>(padded);
    std::string bytes(sizeof(head), '\0');
    std::memcpy(bytes.data(), &head, sizeof(head));
    std::string padding = name;
    padding.resize(padded);
    return bytes + padding;
}

/// From a block of memory of just this size, so that AddressSanitizer sees what is beyond it.
bool decode(const std::string& bytes, events& out) {
    const auto exact = std::make_unique<char[]>(bytes.size());
    std::memcpy(exact.get(), bytes.data(), bytes.size());
    return decode_inotify_events(exact.get(), bytes.size(), out);
}

} // namespace

BOOST_AUTO_TEST_CASE(the_decoder_takes_whole_events_and_refuses_every_truncated_buffer) {
    const strings parts = {encoded(1, IN_CREATE, 0, "one", 16), encoded(2, IN_IGNORED, 0, "", 0),
                           encoded(3, IN_MOVED_TO, 7, "fifteen letters", 16),
                           encoded(4, IN_MODIFY, 0, "sixteen letters!", 16), // without a NUL
                           encoded(5, IN_OPEN, 0, std::string(255, 'n'), 256)};
    std::string all;
    std::vector<std::size_t> ends{0};
    for (const std::string& p : parts) {
        all += p;
        ends.push_back(all.size());
    }
    for (std::size_t size = 0; size <= all.size(); ++size) {
        events e;
        const bool is_whole = std::count(ends.begin(), ends.end(), size) != 0;
        BOOST_REQUIRE_EQUAL(decode(all.substr(0, size), e), is_whole);
        const auto ended = std::count_if(ends.begin() + 1, ends.end(),
                                         [size](std::size_t end) { return end <= size; });
        BOOST_REQUIRE_EQUAL(e.size(), static_cast<std::size_t>(ended));
    }
    events e;
    BOOST_TEST(decode(all, e));
    BOOST_TEST(e[0].name == "one");
    BOOST_TEST(e[1].name == "");
    BOOST_TEST(e[2].name == "fifteen letters");
    BOOST_TEST(e[3].name == "sixteen letters!");
    BOOST_TEST(e[4].name == std::string(255, 'n'));
    BOOST_TEST(e[2].watch == 3);
    BOOST_TEST(e[2].mask == static_cast<unsigned>(IN_MOVED_TO));
    BOOST_TEST(e[2].cookie == 7u);
}

BOOST_AUTO_TEST_CASE(the_decoder_reads_nothing_beyond_buffers_of_random_bytes) {
    test::random_words words(test::from_environment("MOOR_TEST_SEED", 1));
    for (int i = 0; i != 50000; ++i) {
        std::string bytes(words.next() % 64, '\0');
        for (char& c : bytes)
            c = static_cast<char>(words.next());
        if (bytes.size() >= 16 && words.next() % 2) { // a length that may fit
            const auto length = static_cast<std::uint32_t>(words.next() % 48);
            std::memcpy(&bytes[12], &length, sizeof(length));
        }
        events e;
        decode(bytes, e);
        std::size_t used = 0;
        for (const inotify_event& each : e)
            used += 16 + each.name.size();
        BOOST_REQUIRE_LE(used, bytes.size());
    }
    events e;
    BOOST_TEST(!decode(encoded(1, IN_CREATE, 0, "", 0).replace(12, 4, "\xff\xff\xff\xff"), e));
    BOOST_TEST(e.empty());
}

// ---- events -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(events_come_with_names_and_cookies, loop) {
    raw_inotify i(io);
    BOOST_TEST((::fcntl(i.native_handle(), F_GETFD) & FD_CLOEXEC) != 0);
    BOOST_TEST((::fcntl(i.native_handle(), F_GETFL) & O_NONBLOCK) != 0);
    const int watch = i.add(dir.path(), IN_CREATE | IN_MOVE | IN_CLOSE_WRITE | IN_DELETE_SELF);
    write(dir / "file");
    fs::rename(dir / "file", dir / "a rather long name of a file");
    fs::create_directory(dir / "sub");
    const events e = read(i);
    BOOST_REQUIRE_EQUAL(e.size(), 5u);
    const std::uint32_t masks[] = {IN_CREATE, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO,
                                   IN_CREATE | IN_ISDIR};
    const char* const names[] = {"file", "file", "file", "a rather long name of a file", "sub"};
    for (std::size_t n = 0; n != 5; ++n) {
        BOOST_TEST(e[n].watch == watch);
        BOOST_TEST(e[n].mask == masks[n]);
        BOOST_TEST(e[n].name == names[n]);
        BOOST_TEST((e[n].cookie != 0) == (n == 2 || n == 3));
    }
    BOOST_TEST(e[2].cookie == e[3].cookie);

    i.remove(watch);
    const events last = read(i);
    BOOST_REQUIRE_EQUAL(last.size(), 1u);
    BOOST_TEST(last[0].mask == static_cast<unsigned>(IN_IGNORED));
    BOOST_TEST(last[0].name == "");
}

BOOST_FIXTURE_TEST_CASE(a_watch_that_can_not_be_added_or_removed_says_why, loop) {
    raw_inotify i(io);
    error_code ec;
    BOOST_TEST(i.add(dir / "nothing", IN_CREATE, ec) == -1);
    BOOST_CHECK_EQUAL(ec, error_of(ENOENT));
    BOOST_CHECK_THROW(i.add(dir / "nothing", IN_CREATE), boost::system::system_error);
    i.add(dir.path(), 0, ec);
    BOOST_CHECK_EQUAL(ec, error_of(EINVAL));
    i.remove(77, ec);
    BOOST_CHECK_EQUAL(ec, error_of(EINVAL));
    BOOST_CHECK_THROW(i.remove(77), boost::system::system_error);
    watches_left = 0;
    i.add(dir.path(), IN_CREATE, ec);
    watches_left = -1;
    BOOST_CHECK_EQUAL(ec, watch_limit);
    BOOST_TEST((ec == boost::system::errc::no_space_on_device));
    BOOST_TEST(ec.message().find("max_user_watches") != std::string::npos);
    BOOST_TEST((root_gone == boost::system::errc::no_such_file_or_directory));
    BOOST_TEST((bad_event == boost::system::errc::bad_message));
    BOOST_TEST(i.add(dir.path(), IN_CREATE, ec) >= 1);
    BOOST_CHECK_EQUAL(ec, error_code());
    fs::path longer = dir.path();
    longer += std::string("\0/file", 6);
    BOOST_TEST(i.add(longer, IN_CREATE, ec) == -1);
    BOOST_CHECK_EQUAL(ec, error_code(asio::error::invalid_argument));
    inotify_tree t(io, longer);
    BOOST_CHECK_EQUAL(read_changes(t).ec, error_code(asio::error::invalid_argument));
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(objects_without_a_descriptor_of_inotify_say_so, loop) {
    has_instances = false;
    error_code ec;
    raw_inotify i(io, ec);
    BOOST_CHECK_EQUAL(ec, error_of(EMFILE));
    BOOST_CHECK_THROW(raw_inotify{io}, boost::system::system_error);
    inotify_tree t(io, dir.path());
    BOOST_CHECK_EQUAL(read_changes(t).ec, error_of(EMFILE));
    has_instances = true;
    for (int n = 0; n != 2; ++n)
        BOOST_CHECK_EQUAL(run<events>([&](auto h) { i.async_read_events(std::move(h)); }).ec,
                          test::bad_descriptor);
    check_equal(texts(read_changes(t).value), {"ready"});
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(ten_thousand_events_are_read_one_by_one, loop) {
    raw_inotify i(io);
    i.add(dir.path(), IN_CREATE | IN_DELETE);
    const fs::path file = dir / "file";
    for (int n = 0; n != 10000; ++n) {
        if (n % 2 == 0)
            test::unique_fd(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        else
            ::unlink(file.c_str());
        called_with<events> o;
        i.async_read_events(o.handler());
        test::run_until(io, [&] { return bool(o); });
        BOOST_REQUIRE_EQUAL(o.ec, error_code());
        BOOST_REQUIRE_EQUAL(o.value.size(), 1u);
        BOOST_REQUIRE_EQUAL(o.value[0].mask, unsigned(n % 2 == 0 ? IN_CREATE : IN_DELETE));
    }
}

BOOST_FIXTURE_TEST_CASE(two_hundred_pending_operations_complete_in_order, loop) {
    raw_inotify i(io);
    i.add(dir.path(), IN_CREATE);
    std::deque<called_with<events>> all(200);
    for (auto& o : all)
        i.async_read_events(o.handler());
    test::run_ready(io);
    for (std::size_t n = 0; n != all.size(); ++n) {
        const std::string name = std::to_string(n);
        fs::create_directory(dir / name);
        test::run_until(io, [&] { return bool(all[n]); });
        BOOST_REQUIRE_EQUAL(all[n].value.size(), 1u);
        BOOST_REQUIRE_EQUAL(all[n].value[0].name, name);
        BOOST_REQUIRE(n + 1 == all.size() || !all[n + 1]);
    }
    test::run_all(io);
    for (auto& o : all)
        BOOST_REQUIRE_EQUAL(o.times, 1);
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_operation_loses_no_event, loop) {
    raw_inotify i(io);
    i.add(dir.path(), IN_CREATE);
    int cancelled = 0, completed = 0;
    for (int turns = 0; completed < 3; ++turns) {
        BOOST_REQUIRE_LT(turns, 100);
        const std::string name = std::to_string(turns);
        called_with<events> o;
        asio::cancellation_signal signal;
        i.async_read_events(asio::bind_cancellation_slot(signal.slot(), o.handler()));
        if (turns % 2)
            test::run_ready(io);
        fs::create_directory(dir / name);
        io.restart();
        for (int n = 0; n != turns && !o; ++n)
            io.poll_one();
        signal.emit(asio::cancellation_type::total);
        test::run_all(io);
        BOOST_REQUIRE_EQUAL(o.times, 1);
        ++(o.ec ? cancelled : completed);
        if (o.ec) {
            BOOST_CHECK_EQUAL(o.ec, test::aborted);
            o.value = read(i);
        }
        BOOST_REQUIRE_EQUAL(o.value.size(), 1u);
        BOOST_TEST(o.value[0].name == name);
    }
    BOOST_TEST(cancelled > 0);
}

BOOST_FIXTURE_TEST_CASE(a_full_queue_is_told_as_an_event, loop) {
    raw_inotify i(io);
    i.add(dir.path(), IN_CREATE | IN_DELETE);
    std::size_t limit = 0;
    std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> limit;
    BOOST_REQUIRE(limit > 0);
    const std::string file = dir / "file";
    for (std::size_t n = 0; n != limit / 2 + 10; ++n) {
        test::unique_fd(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        ::unlink(file.c_str());
    }
    std::size_t overflows = 0, count = 0;
    while (overflows == 0) {
        const events e = read(i);
        count += e.size();
        for (const inotify_event& each : e)
            if ((each.mask & IN_Q_OVERFLOW) != 0) {
                ++overflows;
                BOOST_TEST(each.watch == -1);
            }
    }
    BOOST_TEST(overflows == 1u);
    BOOST_TEST(count == limit + 1);
    fs::create_directory(dir / "next");
    BOOST_TEST(read(i)[0].name == "next");
}

BOOST_FIXTURE_TEST_CASE(closing_and_releasing_end_what_is_pending, loop) {
    raw_inotify i(io);
    i.add(dir.path(), IN_CREATE);
    called_with<events> o[4];
    i.async_read_events(o[0].handler());
    i.async_read_events(o[1].handler());
    test::run_ready(io);
    const int fd = i.release();
    BOOST_TEST(i.native_handle() == -1);
    BOOST_TEST(o[0].times == 0);
    test::run_all(io);
    BOOST_CHECK_EQUAL(o[0].ec, test::aborted);
    BOOST_CHECK_EQUAL(o[1].ec, test::aborted);
    BOOST_REQUIRE(fd >= 0);
    fs::create_directory(dir / "sub");
    char buffer[100];
    BOOST_TEST(::read(fd, buffer, sizeof(buffer)) > 0);
    ::close(fd);
    i.async_read_events(o[2].handler());
    BOOST_TEST(o[2].times == 0);
    test::run_all(io);
    BOOST_CHECK_EQUAL(o[2].ec, test::bad_descriptor);

    i = raw_inotify(io);
    i.async_read_events(o[3].handler());
    test::run_ready(io);
    i.close();
    i.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(o[3].ec, test::aborted);
}

// ---- a tree -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_tree_is_found_first_and_then_its_changes_are_told, watched_root) {
    fs::create_directories(root("a/b"));
    write(root("a/b/file"));
    fs::create_directory_symlink(dir / "outside", root("link"));
    watch();
    check_equal(sorted(now()), {"found a/", "found a/b/", "found a/b/file", "found link", "ready"});
    check_now({});
    write(root("a/b/file"));
    check_now({"written a/b/file"});
    write(root("a/new"));
    check_now({"created a/new", "written a/new"});
    fs::remove(root("a/b/file"));
    fs::remove(root("a/b"));
    check_now({"removed a/b/file", "removed a/b/"});
    fs::remove_all(root("a"));
    check_now({"removed a/new", "removed a/"});
    fs::remove(root("link"));
    check_now({"removed link"});
}

BOOST_FIXTURE_TEST_CASE(what_is_made_before_its_directory_is_watched_is_told_once, watched_tree) {
    for (int round = 0; round != 3; ++round) {
        fs::create_directories(root("a/b/c"));
        write(root("a/b/file"));
        write(root("a/b/c/file"));
        check_equal(sorted(now()), {"created a/", "created a/b/", "created a/b/c/",
                                    "created a/b/c/file", "created a/b/file"});
        write(root("a/b/c/file"));
        check_now({"written a/b/c/file"});
        fs::remove_all(root("a"));
        check_equal(sorted(now()), {"removed a/", "removed a/b/", "removed a/b/c/",
                                    "removed a/b/c/file", "removed a/b/file"});
    }
    // Between the watch and the reading of the directory, the disk changes at each turn.
    fs::create_directories(root("a"));
    go_on();
    for (int n = 0; n != 200; ++n) {
        write(root("a/" + std::to_string(n)));
        io.poll_one();
    }
    strings all = now();
    all.erase(
        std::remove_if(all.begin(), all.end(), [](const std::string& s) { return s[0] == 'w'; }),
        all.end());
    BOOST_TEST(all.size() == 201u);
    all = sorted(all);
    BOOST_TEST((std::unique(all.begin(), all.end()) == all.end()));
}

BOOST_FIXTURE_TEST_CASE(moves_within_the_tree_into_it_and_out_of_it_are_told, watched_tree) {
    fs::create_directories(root("a/b"));
    fs::create_directories(root("c"));
    write(root("a/b/file"));
    now();
    fs::rename(root("a/b"), root("c/d"));
    check_now({"moved a/b/ -> c/d/"});
    write(root("c/d/file"));
    write(root("c/d/next"));
    check_now({"written c/d/file", "created c/d/next", "written c/d/next"});
    fs::rename(root("c"), root("e"));
    fs::rename(root("e/d/file"), root("a/file"));
    check_now({"moved c/ -> e/", "moved e/d/file -> a/file"});

    fs::rename(root("e"), dir / "outside/e");
    check_now({"removed e/"});
    write(dir / "outside/e/d/next");
    check_now({});
    fs::rename(dir / "outside/e", root("f"));
    check_equal(sorted(now()), {"created f/", "created f/d/", "created f/d/next"});
    write(root("f/d/next"));
    check_now({"written f/d/next"});

    // One that replaces another, which nothing but the move tells.
    write(root("f/d/next"), "more");
    fs::rename(root("f/d/next"), root("a/file"));
    check_now({"written f/d/next", "moved f/d/next -> a/file"});
    write(dir / "outside/file");
    fs::rename(dir / "outside/file", root("a/file"));
    check_now({"removed a/file", "created a/file"});
    fs::create_directory(root("empty"));
    check_now({"created empty/"});
    fs::rename(root("f"), root("empty"));
    check_now({"moved f/ -> empty/"});
    write(root("empty/d/last"));
    check_now({"created empty/d/last", "written empty/d/last"});
}

BOOST_FIXTURE_TEST_CASE(a_new_directory_that_moves_at_once_is_told_with_all_that_is_in_it,
                        watched_tree) {
    fs::create_directories(root("a/b"));
    fs::rename(root("a"), root("c"));
    write(root("c/b/file"));
    check_equal(now(), {"created a/", "moved a/ -> c/", "created c/b/", "created c/b/file"});
    // Into a directory that is not watched yet: nothing tells where to.
    fs::create_directory(root("new"));
    fs::rename(root("c"), root("new/c"));
    check_equal(now(), {"created new/", "removed c/", "created new/c/", "created new/c/b/",
                        "created new/c/b/file"});
    write(root("new/c/b/file"));
    check_now({"written new/c/b/file"});
}

BOOST_FIXTURE_TEST_CASE(an_exchange_of_two_entries_is_followed, watched_tree) {
    fs::create_directories(root("a/in_a"));
    fs::create_directories(root("b/in_b"));
    write(root("file"));
    now();
    exchange(root("a"), root("b"));
    write(root("a/in_b/one"));
    write(root("b/in_a/two"));
    now();
    write(root("a/in_b/one"));
    write(root("b/in_a/two"));
    check_now({"written a/in_b/one", "written b/in_a/two"});
    exchange(root("a"), root("file"));
    now();
    write(root("file/in_b/one"));
    write(root("a"));
    check_now({"written file/in_b/one", "written a"});
}

BOOST_FIXTURE_TEST_CASE(symbolic_links_are_not_followed_but_the_root_is, watched_root) {
    fs::create_directory(dir / "outside/sub");
    fs::create_directory_symlink(dir / "outside", root("link"));
    fs::create_directory_symlink(".", root("self"));
    fs::rename(dir / "root", dir / "real");
    fs::create_directory_symlink("real", dir / "root");
    watch();
    check_equal(sorted(now()), {"found link", "found self", "ready"});
    write(dir / "outside/sub/file");
    fs::create_directory_symlink("..", root("up"));
    check_now({"created up"});
    fs::create_directory(root("a"));
    check_now({"created a/"});
    fs::remove(root("a"));
    fs::create_directory_symlink(dir / "outside", root("a"));
    check_now({"removed a/", "created a"});
}

BOOST_FIXTURE_TEST_CASE(a_directory_that_can_not_be_read_is_told_and_tried_again, watched_root) {
    // As somebody who may not read everything. The kernel asks for the thread's own rights.
    struct as_another {
        const int before = ::setfsuid(65534);
        ~as_another() { ::setfsuid(static_cast<::uid_t>(before)); }
    };
    fs::create_directories(root("a/b"));
    fs::permissions(root("a"), fs::perms(0));
    const std::string refused = ": " + std::to_string(EACCES);
    watch();
    auto told_to_another = [this] {
        const as_another rights;
        return now();
    };
    check_equal(told_to_another(), {"found a/", "unwatched a/" + refused, "ready"});
    fs::rename(root("a"), root("c"));
    check_equal(told_to_another(), {"moved a/ -> c/"}); // tried, and refused as before
    fs::permissions(root("c"), fs::perms(0711));
    check_equal(told_to_another(), {}); // the same
    fs::permissions(root("c"), fs::perms(0755));
    check_equal(told_to_another(), {"created c/b/"});
    fs::create_directory(root("c/d"));
    check_equal(told_to_another(), {"created c/d/"});
    // What is below is to be forgotten, and is told again.
    fs::permissions(root("c"), fs::perms(0));
    fs::rename(root("c"), root("e"));
    check_equal(told_to_another(), {"moved c/ -> e/", "unwatched e/" + refused});
    fs::remove(root("e/d"));
    fs::permissions(root("e"), fs::perms(0755));
    check_equal(told_to_another(), {"created e/b/"});
    close();
    fs::permissions(dir / "root", fs::perms(0700));
    watch();
    check_equal(told_to_another(), {});
    BOOST_CHECK_EQUAL(failure, error_of(EACCES));
}

BOOST_FIXTURE_TEST_CASE(the_limit_of_watches_is_told_for_each_directory_and_fails_for_the_root,
                        watched_root) {
    fs::create_directory(root("a"));
    fs::create_directory(root("b"));
    watches_left = 0;
    watch();
    check_equal(now(), {});
    BOOST_CHECK_EQUAL(failure, watch_limit);
    watches_left = 1;
    const std::string limit = ": " + std::to_string(static_cast<int>(inotify_error::watch_limit));
    check_equal(sorted(now()),
                {"found a/", "found b/", "ready", "unwatched a/" + limit, "unwatched b/" + limit});
    watches_left = -1;
    fs::rename(root("a"), root("c"));
    write(root("c/file"));
    check_now({"moved a/ -> c/", "created c/file"});
}

BOOST_FIXTURE_TEST_CASE(a_lack_of_descriptors_is_no_end_of_the_root_nor_of_a_directory,
                        watched_tree) {
    for (int left = 0; left != 2; ++left) { // one is for the root
        const std::string name = "a" + std::to_string(left);
        go_on();
        test::run_ready(io);
        fs::create_directory(root(name));
        {
            const few_descriptors limit(static_cast<::rlim_t>(left));
            test::run_ready(io);
        }
        check_equal(std::exchange(told, strings()), {"created " + name + '/'});
        BOOST_CHECK_EQUAL(failure, error_of(EMFILE));
        const strings again = now();
        BOOST_TEST(std::count(again.begin(), again.end(), "ready") == 1);
        BOOST_TEST(std::count(again.begin(), again.end(), "found " + name + '/') == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(a_directory_whose_reading_fails_is_told_and_tried_again, watched_tree) {
    fs::create_directories(root("a/b"));
    {
        const test::fault broken(test::call::getdents64, EIO);
        check_now({"created a/", "unwatched a/: " + std::to_string(EIO)});
    }
    fs::permissions(root("a"), fs::perms(0700));
    {
        const test::fault interrupted(test::call::getdents64, EINTR, 1, 1);
        check_now({"created a/b/"});
    }
    close();
    watch();
    {
        const test::fault broken(test::call::getdents64, EIO);
        check_equal(now(), {});
        BOOST_CHECK_EQUAL(failure, error_of(EIO));
    }
    check_equal(now(), {"found a/", "found a/b/", "ready"});
}

BOOST_FIXTURE_TEST_CASE(the_end_of_the_root_is_an_error_and_the_next_operation_begins_anew,
                        watched_root) {
    for (const bool is_moved : {false, true}) {
        fs::create_directory(root("a"));
        watch();
        check_equal(now(), {"found a/", "ready"});
        if (is_moved)
            fs::rename(dir / "root", dir / "other");
        else
            fs::remove_all(dir / "root");
        check_equal(now(), is_moved ? strings() : strings{"removed a/"});
        BOOST_CHECK_EQUAL(failure, root_gone);
        check_equal(now(), {});
        BOOST_CHECK_EQUAL(failure, error_of(ENOENT));
        write(dir / "root");
        check_equal(now(), {});
        BOOST_CHECK_EQUAL(failure, error_of(ENOTDIR));
        fs::remove(dir / "root");
        fs::create_directories(root("b"));
        check_equal(now(), {"found b/", "ready"});
        fs::create_directory(root("b/c"));
        check_now({"created b/c/"});
        fs::remove_all(root("b"));
        check_equal(sorted(now()), {"removed b/", "removed b/c/"});
        tree->close();
        test::run_ready(io);
        BOOST_CHECK_EQUAL(failure, test::aborted);
        check_equal(now(), {});
        BOOST_CHECK_EQUAL(failure, test::bad_descriptor);
    }
}

BOOST_FIXTURE_TEST_CASE(a_root_whose_parent_was_moved_is_missed_at_the_next_reading, watched) {
    fs::create_directories(dir / "parent/root");
    tree.emplace(io, dir / "parent/root");
    check_now({"ready"});
    fs::rename(dir / "parent", dir / "moved");
    check_now({}); // no event tells
    fs::create_directories(dir / "parent/root/not here");
    fs::create_directories(dir / "moved/root/a");
    check_equal(now(), {"created a/"});
    BOOST_CHECK_EQUAL(failure, root_gone);
    check_equal(now(), {"found not here/", "ready"});
}

BOOST_FIXTURE_TEST_CASE(attributes_and_modifications_are_told_if_they_are_asked_for, watched_root) {
    write(root("file"));
    fs::create_directory(root("a"));
    watch(IN_MODIFY | IN_ATTRIB);
    now();
    write(root("file"));
    fs::permissions(root("file"), fs::perms(0600));
    fs::permissions(root("a"), fs::perms(0700));
    check_now({"modified file", "attributes file", "attributes a/"});
    close();
    watch(0);
    now();
    write(root("file"));
    fs::permissions(root("file"), fs::perms(0644));
    check_now({});
}

BOOST_FIXTURE_TEST_CASE(events_that_were_lost_are_told_once_and_the_tree_is_found_again,
                        watched_tree) {
    fs::create_directories(root("a/b"));
    now();
    std::size_t limit = 0;
    std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> limit;
    const std::string file = root("file");
    for (std::size_t n = 0; n != limit / 2 + 10; ++n) {
        test::unique_fd(::open(file.c_str(), O_CREAT | O_RDONLY | O_CLOEXEC, 0600));
        ::unlink(file.c_str());
    }
    fs::rename(root("a/b"), dir / "outside/b"); // its watch is nobody's
    fs::create_directories(root("a/c"));
    strings all = now();
    BOOST_TEST(std::count(all.begin(), all.end(), "overflow") == 1);
    all.erase(all.begin(), std::find(all.begin(), all.end(), "overflow"));
    check_equal(all, {"overflow", "found a/", "found a/c/", "ready"});
    BOOST_CHECK_EQUAL(failure, error_code());
    fs::create_directory(dir / "outside/b/unseen");
    fs::create_directory(root("a/c/d"));
    check_now({"created a/c/d/"});
}

BOOST_AUTO_TEST_CASE(a_large_directory_is_read_in_parts_while_it_changes) {
    const directory dir;
    constexpr int count = 2000;
    auto file = [&](int n) { return dir / ("a file with the number " + std::to_string(n)); };
    for (int n = 0; n != count; ++n)
        test::unique_fd(::open(file(n).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    inotify_model m(dir.path(), 0, 0ns);
    std::map<fs::path, int> there;
    int turns = 0, most = 0;
    while (m.has_more()) {
        ++turns;
        changes v;
        BOOST_REQUIRE_EQUAL(m.turn(v), error_code());
        most = std::max(most, static_cast<int>(v.size()));
        for (const inotify_change& c : v)
            if (c.kind == inotify_kind::found)
                BOOST_REQUIRE_EQUAL(++there[c.path], 1);
            else if (c.kind == inotify_kind::removed)
                BOOST_REQUIRE_EQUAL(--there[c.path], 0);
        for (int n = turns; n < count;
             n += 10) // among those that were read, and those that were not
            ::unlink(file(n).c_str());
    }
    BOOST_TEST(turns > 5);
    BOOST_TEST(most < count / 2);
    while (!is_quiet(m)) {
        changes v;
        BOOST_REQUIRE_EQUAL(m.turn(v), error_code());
        for (const inotify_change& c : v)
            BOOST_REQUIRE_EQUAL(--there[c.path], 0);
    }
    for (const auto& [path, times] : there)
        BOOST_REQUIRE_EQUAL(times == 1, fs::exists(dir / path));
}

BOOST_FIXTURE_TEST_CASE(others_have_their_turn_while_a_tree_is_read, loop) {
    constexpr int count = 100;
    for (int n = 0; n != count; ++n)
        fs::create_directory(dir / std::to_string(n));
    moor::adapt::detail::inotify_session<asio::any_io_executor, inotify_model> tree(
        io.get_executor(), dir.path(), 0u, 0ns);
    bool is_ready = false;
    std::function<void()> next = [&] {
        tree.read([&](error_code ec, const changes& v) {
            BOOST_REQUIRE_EQUAL(ec, error_code());
            is_ready = v.back().kind == inotify_kind::ready;
            if (!is_ready)
                next();
        });
    };
    next();
    int turns = 0; // of another one
    std::function<void()> other = [&] {
        ++turns;
        if (!is_ready)
            asio::post(io, other);
    };
    asio::post(io, other);
    test::run_all(io);
    BOOST_TEST(turns > count);
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_operation_loses_no_change, watched_tree) {
    close();
    inotify_tree t(io, dir / "root");
    int cancelled = 0;
    strings all;
    auto take = [&](const changes& v) {
        for (const std::string& s : texts(v))
            all.push_back(s);
    };
    fs::create_directories(root("a/b/c"));
    for (int turns = 0; turns != 60; ++turns) {
        called_with<changes> o;
        asio::cancellation_signal signal;
        t.async_read_changes(asio::bind_cancellation_slot(signal.slot(), o.handler()));
        if (turns >= 20)
            fs::create_directories(root(std::to_string(turns) + "/sub"));
        io.restart();
        for (int n = 0; n != turns % 10 && !o; ++n)
            io.poll_one();
        signal.emit(asio::cancellation_type::partial);
        test::run_all(io);
        BOOST_REQUIRE_EQUAL(o.times, 1);
        cancelled += o.ec == test::aborted;
        take(o.value);
    }
    const strings last = {"created 59/", "created 59/sub/"};
    while (std::count(all.begin(), all.end(), last[1]) == 0)
        take(read_changes(t).value);
    BOOST_TEST(cancelled > 10);
    BOOST_TEST(all.size() == 4 + 2 * 40u);
    all = sorted(all);
    BOOST_TEST((std::unique(all.begin(), all.end()) == all.end()));
}

// ---- random programs ----------------------------------------------------------------------------

namespace {

/// The tree as the changes tell it. Each change has to fit.
class mirror {
public:
    void make(const inotify_change& c) {
        const std::string path = c.path;
        switch (c.kind) {
        case inotify_kind::found:
        case inotify_kind::created:
            check(c, is_directory(c.path.parent_path()) && names_.count(path) == 0);
            names_[path] = c.is_directory;
            break;
        case inotify_kind::removed:
            check(c, has(path, c.is_directory));
            take(path);
            break;
        case inotify_kind::moved: {
            check(c, is_directory(c.path.parent_path()) && has(c.from, c.is_directory));
            std::map<std::string, bool> moved = take(c.from);
            take(path);
            for (const auto& [name, is_dir] : moved)
                names_[path + name.substr(c.from.native().size())] = is_dir;
            break;
        }
        case inotify_kind::unwatched:
            check(c, false);
            break;
        case inotify_kind::overflow:
            names_.clear();
            break;
        case inotify_kind::ready:
            break;
        default:
            check(c, has(path, c.is_directory));
        }
    }

    /// What differs from the disk.
    std::string difference(const fs::path& root) const {
        std::map<std::string, bool> disk;
        for (const fs::directory_entry& e : fs::recursive_directory_iterator(root))
            disk[e.path().lexically_relative(root)] = !e.is_symlink() && e.is_directory();
        std::string s;
        for (const auto& [name, is_dir] : disk)
            if (!has(name, is_dir))
                s += "\n  only on the disk: " + name;
        for (const auto& [name, is_dir] : names_) {
            const auto at = disk.find(name);
            if (at == disk.end() || at->second != is_dir)
                s += "\n  only told: " + name;
        }
        return s;
    }

    std::string misfits;

private:
    bool has(const std::string& path, bool is_dir) const {
        const auto at = names_.find(path);
        return at != names_.end() && at->second == is_dir;
    }
    bool is_directory(const std::string& path) const { return path.empty() || has(path, true); }
    void check(const inotify_change& c, bool fits) {
        if (!fits)
            misfits += "\n  does not fit: " + text(c);
    }
    std::map<std::string, bool> take(const std::string& path) {
        std::map<std::string, bool> taken;
        for (auto at = names_.lower_bound(path); at != names_.end();) {
            const bool is_it =
                at->first == path || at->first.compare(0, path.size() + 1, path + '/') == 0;
            if (is_it) {
                taken.insert(*at);
                at = names_.erase(at);
            } else if (at->first.compare(0, path.size(), path) == 0) {
                ++at;
            } else {
                break;
            }
        }
        return taken;
    }

    std::map<std::string, bool> names_;
};

/// Changes a tree at random, with system calls that may fail.
class changer {
public:
    changer(const fs::path& root, const fs::path& outside, std::uint64_t seed)
        : root_(root), outside_(outside), dice_(seed) {}

    void step() {
        const std::string a = path(), b = path();
        switch (dice_.below(20)) {
        case 0:
        case 1:
        case 2:
            ::mkdir(a.c_str(), 0755);
            break;
        case 3:
            ::mkdir(a.c_str(), 0755);
            ::mkdir((a + "/a").c_str(), 0755);
            ::mkdir((a + "/a/b").c_str(), 0755);
            put(a + "/a/b/c");
            break;
        case 4:
        case 5:
            put(a);
            break;
        case 6:
            ::unlink(a.c_str());
            break;
        case 7:
            ::rmdir(a.c_str());
            break;
        case 8:
            if (::symlink(root_.c_str(), a.c_str()) != 0)
                ::unlink(a.c_str());
            break;
        case 9: {
            std::error_code ignored;
            if (dice_.one_in(3))
                fs::remove_all(a, ignored);
            break;
        }
        case 10:
            ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
            break;
        default:
            ::rename(a.c_str(), b.c_str());
        }
    }

    std::uint32_t below(std::size_t n) { return dice_.below(n); }

private:
    static void put(const std::string& path) {
        const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            if (::write(fd, "x", 1) != 1)
                std::terminate();
            ::close(fd);
        }
    }

    std::string path() {
        std::string s = dice_.one_in(6) ? outside_ : root_;
        const std::uint32_t depth = 1 + dice_.below(3);
        for (std::uint32_t i = 0; i != depth; ++i)
            s += std::string("/") + static_cast<char>('a' + dice_.below(3));
        return s;
    }

    std::string root_, outside_;
    test::dice dice_;
};

std::uint64_t first_seed() {
    const std::uint64_t seed =
        test::from_environment("MOOR_TEST_SEED", std::uint64_t(std::random_device()()) << 16);
    BOOST_TEST_MESSAGE("MOOR_TEST_SEED=" << seed);
    return seed;
}
std::uint64_t programs(std::uint64_t usual) {
    return test::from_environment("MOOR_TEST_PROGRAMS", usual);
}

/// A root and a directory outside, where a program has worked before.
struct scene : directory {
    fs::path root = path() / "root", outside = path() / "outside";
    changer program;

    explicit scene(std::uint64_t seed) : program(root, outside, seed) {
        fs::create_directory(root);
        fs::create_directory(outside);
        for (std::uint32_t n = program.below(20); n != 0; --n)
            program.step();
    }
};

} // namespace

BOOST_AUTO_TEST_CASE(the_tree_as_told_is_the_tree_on_the_disk_whatever_comes_between_two_turns) {
    const std::uint64_t seed = first_seed();
    std::ptrdiff_t moves = 0;
    for (std::uint64_t n = 0; n != programs(200); ++n) {
        scene s(seed + n);
        mirror told;
        std::string log;
        // One call in a turn, or all.
        inotify_model m(s.root, IN_CLOSE_WRITE, s.program.below(2) == 0 ? 0ns : 1h);
        auto turn = [&] {
            changes v;
            const error_code ec = m.turn(v);
            BOOST_REQUIRE_MESSAGE(!ec, ec.message() << ", MOOR_TEST_SEED=" << seed + n);
            for (const inotify_change& c : v) {
                told.make(c);
                log += "\n    " + text(c);
            }
            moves += std::count_if(v.begin(), v.end(), [](const inotify_change& c) {
                return c.kind == inotify_kind::moved;
            });
        };
        const std::uint32_t pace = 1 + s.program.below(6);
        const std::uint32_t within = 1 + s.program.below(6);
        // Events that come while directories are read are older than what is read next.
        beside_watches = [&] {
            while (s.program.below(within) == 1)
                s.program.step();
        };
        for (int steps = 0; steps != 60; ++steps) {
            s.program.step();
            if (s.program.below(pace) == 0)
                turn();
        }
        beside_watches = nullptr;
        while (!is_quiet(m))
            turn();
        BOOST_REQUIRE_MESSAGE(told.misfits.empty() && told.difference(s.root).empty(),
                              "MOOR_TEST_SEED=" << seed + n << " MOOR_TEST_PROGRAMS=1"
                                                << told.misfits << told.difference(s.root) << log);
    }
    BOOST_TEST_MESSAGE(moves << " moves");
    BOOST_TEST(moves > 0);
}

BOOST_FIXTURE_TEST_CASE(a_directory_far_below_the_root_is_watched, directory) {
    // The path is longer than PATH_MAX.
    const std::string name(200, 'd');
    moor::adapt::detail::file_descriptor fd(
        ::open(path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (int depth = 0; depth != 25; ++depth) {
        BOOST_REQUIRE_EQUAL(::mkdirat(fd.get(), name.c_str(), 0755), 0);
        fd.reset(::openat(fd.get(), name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        BOOST_REQUIRE(fd.get() >= 0);
    }
    inotify_model m(path(), 0, 1h);
    changes v;
    BOOST_REQUIRE_EQUAL(m.turn(v), error_code());
    BOOST_TEST(v.size() == 26u);
    BOOST_TEST((v.back().kind == inotify_kind::ready));
    BOOST_REQUIRE_EQUAL(::mkdirat(fd.get(), "new", 0755), 0);
    BOOST_REQUIRE_EQUAL(m.turn(v), error_code());
    BOOST_REQUIRE(v.size() == 1u);
    BOOST_TEST((v[0].kind == inotify_kind::created));
    BOOST_TEST(v[0].path.native().size() == 25 * 201 + 3);
}

BOOST_FIXTURE_TEST_CASE(a_link_that_has_taken_the_place_of_a_directory_is_not_followed, directory) {
    const fs::path root = path() / "root";
    fs::create_directories(root / "a");
    fs::create_directories(root / "d" / "a");
    fs::create_symlink(root, root / "link");
    inotify_model m(root, 0, 1h);
    mirror told;
    auto turns = [&] {
        do {
            changes v;
            BOOST_REQUIRE_EQUAL(m.turn(v), error_code());
            for (const inotify_change& c : v)
                told.make(c);
        } while (!is_quiet(m));
    };
    int calls = 0;
    beside_watches = [&] {
        if (++calls == 6) // "d" was opened, and "d/a" was not: it would be "a" now
            BOOST_TEST(::renameat2(AT_FDCWD, (root / "d").c_str(), AT_FDCWD,
                                   (root / "link").c_str(), RENAME_EXCHANGE) == 0);
    };
    turns();
    beside_watches = nullptr;
    BOOST_TEST(calls > 6);
    fs::create_directory(root / "a" / "new");
    fs::create_directory(root / "link" / "a" / "new");
    turns();
    BOOST_TEST(told.misfits == "");
    BOOST_TEST(told.difference(root) == "");
}

BOOST_FIXTURE_TEST_CASE(the_tree_as_told_is_the_tree_that_another_thread_has_left_on_the_disk,
                        loop) {
    const std::uint64_t seed = first_seed();
    std::ptrdiff_t moves = 0, count = 0;
    for (std::uint64_t n = 0; n != programs(50); ++n) {
        scene s(seed + n);
        mirror told;
        std::string log;
        error_code failure;
        inotify_tree t(io, s.root);
        std::function<void()> next = [&] {
            t.async_read_changes([&](error_code ec, const changes& v) {
                failure = ec;
                for (const inotify_change& c : v) {
                    told.make(c);
                    ++count;
                    moves += c.kind == inotify_kind::moved;
                    log += "\n    " + text(c);
                }
                if (!ec)
                    next();
            });
        };
        io.restart();
        next();
        std::atomic<bool> is_over{false};
        std::atomic<std::uint32_t> turns{0};
        std::thread other([&] {
            for (int steps = 0; steps != 60; ++steps) {
                s.program.step();
                const std::uint32_t until = turns + (s.program.below(4) == 0 ? 2 : 0);
                while (turns < until) // or the loop would see the end only
                    std::this_thread::yield();
            }
            is_over = true;
        });
        while (!is_over) {
            if (io.poll_one() == 0)
                std::this_thread::yield();
            ++turns;
        }
        other.join();
        test::run_ready(io);
        BOOST_REQUIRE_MESSAGE(!failure && told.misfits.empty() && told.difference(s.root).empty(),
                              "MOOR_TEST_SEED=" << seed + n << " MOOR_TEST_PROGRAMS=1 "
                                                << failure.message() << told.misfits
                                                << told.difference(s.root) << log);
        t.close();
        test::run_all(io);
    }
    BOOST_TEST_MESSAGE(count << " changes, " << moves << " moves");
    BOOST_TEST(moves > 0);
}

BOOST_FIXTURE_TEST_CASE(a_tree_is_told_whole_after_a_lack_of_memory, watched_root,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    int failures = 0;
    bool has_failed = true;
    for (long n = 0; has_failed; ++n) {
        directory each;
        inotify_tree t(io, each.path());
        mirror seen;
        error_code last;
        std::function<void()> next = [&] {
            t.async_read_changes([&](error_code ec, const changes& v) {
                const test::own_calls here;
                last = ec;
                if (ec)
                    seen = mirror(); // begins anew
                failures += ec == asio::error::no_memory;
                for (const inotify_change& c : v)
                    seen.make(c);
                if (ec != test::aborted)
                    next();
            });
        };
        next();
        test::run_ready(io);
        fs::create_directories(each / "a/b");
        fs::create_directories(each / "c");
        fs::rename(each / "a", each / "d");
        write(each / "d/file");
        {
            const test::out_of_memory none(n);
            for (int turns = 0; turns != 20; ++turns) {
                try {
                    io.poll_one();
                } catch (const std::bad_alloc&) {}
            }
            has_failed = none.happened() != 0;
        }
        test::run_ready(io);
        BOOST_CHECK_EQUAL(last, error_code());
        BOOST_TEST_CONTEXT("after " << n << " allocations")
        BOOST_TEST((seen.misfits + seen.difference(each.path())) == "");
        t.close();
        test::run_all(io);
    }
    BOOST_TEST(failures > 10);
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(objects_are_destroyed_after_any_turn_of_the_loop, loop) {
    fs::create_directories(dir / "root/a/b");
    bool is_over = false;
    for (int turns = 0; !is_over; ++turns) {
        BOOST_REQUIRE_LT(turns, 200);
        io.restart();
        int ended = 0, got = 0;
        auto count = [&](error_code ec, auto&&) {
            ++ended;
            got += !ec;
        };
        std::optional<raw_inotify> i(std::in_place, io);
        std::optional<inotify_tree> t(std::in_place, io, dir / "root");
        i->add(dir / "root", IN_CREATE | IN_DELETE);
        i->async_read_events(count);
        i->async_read_events([&](error_code, events) {
            ++ended;
            i.reset(); // in its handler
        });
        int wanted = 4;
        t->async_read_changes(count);
        t->async_read_changes([&](error_code ec, changes) {
            ++ended;
            is_over = !ec;
            t.reset();
        });
        fs::create_directory(dir / "root/c");
        for (int n = 0; n != turns && ended != wanted; ++n) {
            if (n == turns / 2)
                fs::remove(dir / "root/c");
            io.poll_one();
        }
        fs::remove(dir / "root/c");
        i.reset();
        t.reset();
        test::run_all(io);
        BOOST_REQUIRE_EQUAL(ended, wanted);
        is_over = is_over && got == 2;
    }
}

BOOST_AUTO_TEST_CASE(objects_outlive_their_context) {
    const directory dir;
    fs::create_directories(dir / "root/a");
    const long descriptors = test::open_descriptors();
    auto alive = std::make_shared<int>(0);
    for (int turns = 0; turns != 8; ++turns) {
        std::optional<raw_inotify> i;
        std::optional<inotify_tree> t;
        {
            asio::io_context io;
            i.emplace(io);
            t.emplace(io, dir / "root");
            i->add(dir.path(), IN_CREATE);
            asio::cancellation_signal signal;
            i->async_read_events(
                asio::bind_cancellation_slot(signal.slot(), [alive](error_code, events) {}));
            t->async_read_changes([alive](error_code, changes) {});
            t->async_read_changes([alive](error_code, changes) {});
            for (int n = 0; n != turns; ++n)
                io.poll_one();
            if (turns % 2)
                signal.emit(asio::cancellation_type::total);
        }
        BOOST_TEST(alive.use_count() == 1);
        if (turns % 3 == 0) {
            i->close();
            t->close();
        }
        raw_inotify moved(std::move(*i));
    }
    BOOST_TEST(test::open_descriptors() == descriptors);
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_owns_the_object_does_not_leak, loop) {
    auto alive = std::make_shared<int>(0);
    {
        asio::io_context other;
        auto t = std::make_shared<inotify_tree>(other, dir.path());
        auto i = std::make_shared<raw_inotify>(other);
        t->async_read_changes([t, alive](error_code, changes) {
            t->async_read_changes([t, alive](error_code, changes) {});
        });
        i->async_read_events([i, alive](error_code, events) {});
        t.reset();
        i.reset();
        for (int n = 0; n != 6; ++n)
            other.poll_one();
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(objects_are_moved_with_their_pending_operations, loop) {
    fs::create_directory(dir / "root");
    called_with<events> o[2];
    raw_inotify first(io);
    first.add(dir.path(), IN_CREATE);
    first.async_read_events(o[0].handler());
    raw_inotify second(std::move(first));
    test::run_ready(io);
    fs::create_directory(dir / "sub");
    test::run_all(io);
    BOOST_CHECK_EQUAL(o[0].ec, error_code());
    second.async_read_events(o[1].handler());
    second = raw_inotify(io);
    test::run_all(io);
    BOOST_CHECK_EQUAL(o[1].ec, test::aborted);

    inotify_tree t(io, dir / "root");
    called_with<changes> c;
    t.async_read_changes(c.handler());
    io.restart();
    io.poll_one();
    inotify_tree u(std::move(t));
    test::run_all(io);
    check_equal(texts(c.value), {"ready"});
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_object_costs_nothing_and_lets_the_loop_end, watched_tree) {
    close();
    raw_inotify i(io);
    inotify_tree t(io, dir / "root");
    i.add(dir / "root", IN_CREATE);
    test::run_all(io);
    check_equal(texts(read_changes(t).value), {"ready"});
    test::run_all(io); // returns although both are open
    fs::create_directory(root("a"));
    test::check_costs_nothing(io); // the events wait for an operation
    BOOST_TEST(read(i).size() == 1u);
    check_equal(texts(read_changes(t).value), {"created a/"});
    called_with<events> e;
    called_with<changes> c;
    i.async_read_events(e.handler());
    t.async_read_changes(c.handler());
    test::run_ready(io);
    const test::watched_transfers reads(i.native_handle());
    test::check_costs_nothing(io);
    BOOST_TEST(reads.reads() == 0);
    BOOST_TEST(!e);
    BOOST_TEST(!c);
    i.close();
    t.close();
    test::run_all(io);
    BOOST_CHECK_EQUAL(e.ec, test::aborted);
    BOOST_CHECK_EQUAL(c.ec, test::aborted);
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(objects_run_on_a_strand_of_a_thread_pool) {
    const directory dir;
    fs::create_directory(dir / "root");
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 300;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    moor::adapt::basic_inotify_tree<strand_type> t(strand, dir / "root");
    int n = 0;
    std::function<void()> next = [&] {
        outside += !strand.running_in_this_thread();
        t.async_read_changes([&](error_code ec, const changes& v) {
            outside += !strand.running_in_this_thread();
            good += !ec;
            n += static_cast<int>(v.size());
            if (ec || n >= count) {
                t.close();
                return over.set_value();
            }
            fs::create_directories(dir / "root" / std::to_string(n) / "sub");
            next();
        });
    };
    asio::post(strand, next);
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(good > 0);
    BOOST_TEST(n >= count);
    BOOST_TEST(outside == 0);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    const directory dir;
    asio::thread_pool pool(1);
    auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    raw_inotify i(pool);
    i.add(dir.path(), IN_CREATE);
    std::future<events> e = there([&] { return i.async_read_events(asio::use_future); });
    fs::create_directory(dir / "sub");
    BOOST_TEST(e.get().at(0).name == "sub");
    there([&] { i.close(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> race(const directory& dir, int& good) {
    const auto ex = co_await asio::this_coro::executor;
    raw_inotify i(ex);
    i.add(dir.path(), IN_CREATE);
    asio::steady_timer deadline(ex, 10ms);
    auto first = co_await (i.async_read_events(asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    fs::create_directory(dir / "sub");
    const events e = co_await i.async_read_events(use_awaitable);
    good += e.at(0).name == "sub";
    asio::use_awaitable_t<>::as_default_on_t<raw_inotify> by_default(ex);
    by_default.add(dir / "sub", IN_DELETE_SELF);
    fs::remove(dir / "sub");
    good += (co_await by_default.async_read_events()).size() == 2;
    inotify_tree t(ex, dir / "nothing");
    try {
        co_await t.async_read_changes(use_awaitable);
    } catch (const boost::system::system_error& error) {
        good += error.code() == error_of(ENOENT);
    }
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_events_against_a_timer, loop) {
    int good = 0;
    asio::co_spawn(io, race(dir, good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    test::run_until(io, [&] { return good == 4; });
    test::run_ready(io);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
