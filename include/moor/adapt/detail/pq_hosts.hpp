//
// moor/adapt/detail/pq_hosts.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// libpq looks up the names of hosts with getaddrinfo, which blocks, also when it connects without
// blocking. So Asio's resolver looks them up before, and libpq is given "hostaddr" beside "host".
//

#ifndef MOOR_ADAPT_DETAIL_PQ_HOSTS_HPP
#define MOOR_ADAPT_DETAIL_PQ_HOSTS_HPP

#include <moor/error.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <libpq-fe.h>

namespace moor {
namespace adapt {
namespace detail {

/// A server to try: a name or a directory, the address of the name, and the port.
struct pq_host {
    std::string name, address, port;

    /// Whether libpq would look up the name.
    bool needs_address() const {
        if (name.empty() || name[0] == '/' || name[0] == '@' || !address.empty())
            return false;
        error_code ec;
        boost::asio::ip::make_address(name, ec);
        return static_cast<bool>(ec);
    }
};

using pq_hosts = std::vector<pq_host>;

inline std::vector<std::string> split_at_commas(const std::string& text) {
    std::vector<std::string> parts(1);
    for (char c : text) {
        if (c == ',')
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

/// Joins a member of all hosts with commas.
inline std::string join(const pq_hosts& hosts, std::string pq_host::*member) {
    std::string text;
    for (const pq_host& h : hosts)
        text += (&h == hosts.data() ? "" : ",") + h.*member;
    return text;
}

/// The hosts of a connection string; none if libpq needs no help with any of them.
inline pq_hosts hosts_to_look_up(const std::string& connection_string) {
    std::string names, ports, addresses, service;
    struct parameter {
        const char* keyword;
        const char* variable;
        std::string& value;
    } parameters[] = {{"host", "PGHOST", names},
                      {"port", "PGPORT", ports},
                      {"hostaddr", "PGHOSTADDR", addresses},
                      {"service", "PGSERVICE", service}};
    struct free_options {
        void operator()(PQconninfoOption* o) const noexcept { PQconninfoFree(o); }
    };
    const std::unique_ptr<PQconninfoOption, free_options> options(
        PQconninfoParse(connection_string.c_str(), nullptr));
    if (!options)
        return {}; // libpq is going to say what is wrong
    for (parameter& p : parameters) {
        const char* value = nullptr;
        for (const PQconninfoOption* o = options.get(); o->keyword; ++o)
            if (o->keyword == std::string(p.keyword))
                value = o->val;
        if (!value)
            value = std::getenv(p.variable); // NOLINT(concurrency-mt-unsafe): as libpq does
        if (value)
            p.value = value;
    }
    const std::vector<std::string> host = split_at_commas(names), port = split_at_commas(ports);
    if (!addresses.empty() || !service.empty() || (port.size() != 1 && port.size() != host.size()))
        return {};
    pq_hosts hosts;
    bool is_any_needed = false;
    for (std::size_t i = 0; i != host.size(); ++i) {
        hosts.push_back({host[i], std::string(), port[port.size() == 1 ? 0 : i]});
        is_any_needed = is_any_needed || hosts.back().needs_address();
    }
    return is_any_needed ? hosts : pq_hosts();
}

/// Looks up the names of hosts, one after the other. Owned by its pending operation.
template <class Executor>
class pq_lookup : public std::enable_shared_from_this<pq_lookup<Executor>> {
    using resolver = boost::asio::ip::basic_resolver<boost::asio::ip::tcp, Executor>;

public:
    using completion = std::function<void(error_code, const pq_hosts&)>;

    pq_lookup(const Executor& ex, pq_hosts hosts, completion done)
        : resolver_(ex), hosts_(std::move(hosts)), done_(std::move(done)) {}

    /// Looks up the next name, or calls `done`. A name that is not found is left out, unless none
    /// is found.
    void next() {
        for (; next_ != hosts_.size() && !hosts_[next_].needs_address(); ++next_)
            found_.push_back(hosts_[next_]);
        if (next_ == hosts_.size())
            return done_(found_.empty() ? error_ : error_code(), found_);
        resolver_.async_resolve(hosts_[next_].name, std::string(), typename resolver::flags(),
                                [self = this->shared_from_this()](
                                    error_code ec, const typename resolver::results_type& results) {
                                    self->take(ec, results);
                                });
    }

    /// `done` is not called any more.
    void cancel() {
        is_cancelled_ = true;
        resolver_.cancel();
    }

private:
    void take(const error_code& ec, const typename resolver::results_type& results) {
        if (is_cancelled_)
            return;
        BOOST_TRY {
            const pq_host& h = hosts_[next_++];
            if (ec)
                error_ = ec;
            for (const auto& entry : results)
                found_.push_back({h.name, entry.endpoint().address().to_string(), h.port});
            next();
        }
        BOOST_CATCH(...) { done_(boost::asio::error::no_memory, pq_hosts()); }
        BOOST_CATCH_END
    }

    resolver resolver_;
    pq_hosts hosts_, found_;
    completion done_;
    std::size_t next_ = 0;
    error_code error_;
    bool is_cancelled_ = false;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_PQ_HOSTS_HPP
