// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a user reads: one short message a cause; exceptions that name the class, the function, the
// descriptor and the place.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/throw_exception.hpp>

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <vector>

BOOST_AUTO_TEST_SUITE(messages)

namespace {

namespace asio = boost::asio;
using test::error_code;

const moor::error all_errors[] = {moor::error::gone, moor::error::already_registered,
                                  moor::error::not_registered, moor::error::already_open,
                                  moor::error::registered_elsewhere};

/// What it throws begins with the function and the descriptor, and knows where.
template <class F>
void check_exception(F f, const std::string& function, int handle) {
    std::string start = function + '(' + std::to_string(handle) + "): ";
    try {
        f();
        BOOST_ERROR(start << " was expected");
    } catch (const boost::system::system_error& e) {
        std::string what = e.what();
        BOOST_TEST(what.substr(0, start.size()) == start);
        BOOST_TEST(what.find(e.code().message()) != std::string::npos);
        boost::source_location where = boost::get_throw_location(e);
        BOOST_TEST(std::string(where.file_name()).find("moor/") != std::string::npos);
        BOOST_TEST(where.line() != 0u);
        std::string last = function.substr(function.rfind(':') + 1);
        BOOST_TEST(std::string(where.function_name()).find(last) != std::string::npos);
    }
}

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    int fd = p.a.get();
};

} // namespace

BOOST_AUTO_TEST_CASE(a_message_is_a_dozen_words_and_no_advice) {
    std::set<std::string> texts;
    for (moor::error e : all_errors) {
        std::string text = error_code(e).message();
        texts.insert(text);
        BOOST_TEST(std::count(text.begin(), text.end(), ' ') < 14);
        BOOST_TEST(text.size() < 80u);
        BOOST_TEST(text.find(';') == std::string::npos);
    }
    BOOST_TEST(texts.size() == std::size(all_errors));
}

BOOST_FIXTURE_TEST_CASE(a_registration_says_which_descriptor_failed, fixture) {
    moor::registration reg(io, fd);
    moor::registration other(io);
    const std::string of = "moor::registration::";
    check_exception([&] { other.register_handle(fd); }, of + "register_handle", fd);
    check_exception([&] { reg.register_handle(p.b); }, of + "register_handle", p.b);
    check_exception([&] { moor::registration(io, fd); }, of + "register_handle", fd);
    check_exception([&] { moor::registration(io, -3); }, of + "register_handle", -3);
    check_exception([&] { other.reset(fd); }, of + "reset", fd);
    check_exception([&] { other.query(); }, of + "query", -1);
}

BOOST_FIXTURE_TEST_CASE(a_descriptor_says_which_descriptor_failed, fixture) {
    moor::registration reg(io, fd);
    moor::stream_descriptor d(io), none(io);
    const std::string of = "moor::descriptor::";
    check_exception([&] { d.assign(fd); }, of + "assign", fd);
    check_exception([&] { d.assign(moor::borrow(fd)); }, of + "assign", fd);
    check_exception([&] { moor::stream_descriptor(io, fd); }, of + "assign", fd);
    check_exception([&] { none.cancel(); }, of + "cancel", -1);
    check_exception([&] { none.wait(moor::descriptor::wait_read); }, of + "wait", -1);
    check_exception([&] { none.native_non_blocking(true); }, of + "native_non_blocking", -1);
    moor::descriptor::bytes_readable command;
    check_exception([&] { none.io_control(command); }, of + "io_control", -1);

    reg.deregister();
    d.assign(moor::borrow(fd));
    d.non_blocking(true);
    char c = 0;
    check_exception([&] { d.read_some(asio::buffer(&c, 1)); }, "moor::stream_descriptor::read_some",
                    fd);
    check_exception([&] { d.wait(moor::descriptor::wait_read); }, of + "wait", fd);
    d.close();
    check_exception([&] { none.non_blocking(true); }, of + "non_blocking", -1);
    test::fd_pair q = test::make_pipe();
    int number = q.a.release();
    moor::stream_descriptor closed(io, number);
    ::close(number);
    check_exception([&] { closed.close(); }, of + "close", number);
}

BOOST_FIXTURE_TEST_CASE(a_name_is_shown_wherever_the_registration_goes, fixture) {
    auto& service = moor::use_registration_service(io);
    auto named = [&] {
        std::ostringstream os;
        service.dump(os);
        auto infos = service.snapshot();
        BOOST_REQUIRE_EQUAL(infos.size(), 1u);
        BOOST_TEST((os.str().find(infos[0].name) != std::string::npos));
        return infos[0].name;
    };
    moor::registration reg(io);
    reg.name("libpq, connection 3");
    reg.register_handle(fd);
    BOOST_TEST(named() == "libpq, connection 3");
    BOOST_TEST(reg.name() == named());
    moor::registration moved(std::move(reg));
    moved.reset(p.b);
    BOOST_TEST(named() == "libpq, connection 3");
    moved.name("another");
    BOOST_TEST(named() == "another");
    moved.deregister();
    reg.register_handle(fd); // its name went with the handle
    BOOST_TEST(named() == "");
    BOOST_TEST(reg.name() == "");
}

BOOST_AUTO_TEST_SUITE_END()
