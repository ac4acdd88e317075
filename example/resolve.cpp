//
// resolve.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Prints the addresses of hosts, or the SRV records of names that begin with an underscore; all at
// the same time, without a thread. The addresses of a host have to come within three seconds. With
// a DNS server of its own:
//
//     example/run.sh resolve
//
// With the servers of the system:
//
//     g++ -std=c++20 -I../include resolve.cpp -pthread -lcares
//     ./a.out www.boost.org _imaps._tcp.gmail.com
//
// doc/adapt-c_ares.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/c_ares.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <list>
#include <sstream>
#include <string>
#include <vector>

#include <arpa/nameser.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;
using namespace std::chrono_literals;

namespace {

//[host
/// The addresses of a host.
asio::awaitable<std::string> find_host(adapt::c_ares_resolver& r, std::string host) {
    std::ostringstream out;
    out << host << " http:";
    asio::steady_timer limit(r.get_executor(), 3s);
    auto first = co_await (r.async_resolve(host, "http", asio::as_tuple(use_awaitable)) ||
                           limit.async_wait(use_awaitable)); // which cancels the other one
    if (first.index() == 1) {
        out << " no answer";
        co_return out.str();
    }
    auto [ec, endpoints] = std::get<0>(first);
    if (ec)
        out << ' ' << ec.message();
    for (const auto& entry : endpoints)
        out << ' ' << entry.endpoint(); // asio::async_connect(socket, endpoints, ...) tries them
    co_return out.str();
}
//]

//[srv
/// The SRV records of a name, with a parser of c-ares.
asio::awaitable<std::string> find_services(adapt::c_ares_resolver& r, std::string name) {
    adapt::c_ares_answer answer = co_await r.async_query(name, ns_c_in, ns_t_srv, use_awaitable);
    ares_srv_reply* list = nullptr;
    int size = static_cast<int>(answer.size());
    if (int status = ares_parse_srv_reply(answer.data(), size, &list))
        throw boost::system::system_error(adapt::c_ares_error_code(status), name);
    std::ostringstream out;
    out << name << ':';
    for (const ares_srv_reply* each = list; each; each = each->next)
        out << ' ' << each->host << ':' << each->port;
    ares_free_data(list);
    co_return out.str();
}
//]

} // namespace

int main(int argc, char** argv) {
    try {
        std::vector<std::string> names(argv + 1, argv + argc);
        //[options
        asio::io_context io;
        adapt::c_ares_options options;
        if (const char* server = std::getenv("MOOR_SERVERS_DNS")) // of example/run.sh
            options.servers = server;
        adapt::c_ares_resolver resolver(io, options);
        //]
        if (names.empty())
            names = {"four.test", "_sip._tcp.test", "nothing.test"};
        std::list<std::string> found;
        int failed = 0;
        for (const std::string& name : names) {
            std::string& line = found.emplace_back();
            asio::co_spawn(
                io, name[0] == '_' ? find_services(resolver, name) : find_host(resolver, name),
                [&, name](std::exception_ptr e, std::string text) {
                    line = text;
                    try {
                        if (e)
                            std::rethrow_exception(e);
                    } catch (const std::exception& error) {
                        line = name + ": " + error.what();
                        ++failed;
                    }
                });
        }
        io.run();
        for (const std::string& line : found)
            std::cout << line << '\n';
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
