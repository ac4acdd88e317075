//
// moor/adapt/detail/ares_lookup.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Lookups of names and addresses, with the results of Asio's resolver.
//
// The system's getaddrinfo answers what needs no server: numeric hosts, services, and the absence
// of a host. So the rules for these are the same as for Asio's resolver. c-ares is given names
// only. (c-ares 1.18 sends numeric IPv4 addresses to the server, unless it is asked for IPv4 only.)
//

#ifndef MOOR_ADAPT_DETAIL_ARES_LOOKUP_HPP
#define MOOR_ADAPT_DETAIL_ARES_LOOKUP_HPP

#include <moor/adapt/c_ares_types.hpp>
#include <moor/adapt/detail/ares_session.hpp>
#include <moor/adapt/detail/has_null.hpp>
#include <moor/error.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/address_v4.hpp>
#include <boost/asio/ip/address_v6.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/asio/ip/basic_resolver_results.hpp>
#include <boost/asio/ip/resolver_base.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ares.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace moor {
namespace adapt {
namespace detail {

/// Host and service, as Asio's resolver is asked for them.
template <class Protocol>
struct ares_question {
    std::optional<Protocol> protocol;
    std::string host;
    std::string service;
    boost::asio::ip::resolver_base::flags flags;
};

template <class Protocol>
class ares_lookup final
    : public ares_request_for<boost::asio::ip::basic_resolver_results<Protocol>> {
    using results = boost::asio::ip::basic_resolver_results<Protocol>;
    using endpoint = typename Protocol::endpoint;
    using resolver = boost::asio::ip::basic_resolver<Protocol>;
    using base = boost::asio::ip::resolver_base;

public:
    explicit ares_lookup(ares_question<Protocol> q) : question_(std::move(q)) {}

    /// Whether getaddrinfo had the answer. Otherwise the port and the families are known now.
    bool is_answered_at_once(const ares_session::executor_type& ex) {
        if (has_null(question_.host) || has_null(question_.service)) {
            this->end(c_ares_error::bad_name);
            return true;
        }
        resolver local(ex);
        error_code ec;
        results found = resolve(local, question_.host, question_.flags | base::numeric_host, ec);
        if (ec == boost::asio::error::host_not_found && is_name())
            ec = prepare(local);
        else if (!ec)
            this->complete(ec, std::move(found));
        if (ec)
            this->end(ec);
        return !this->is_pending();
    }

private:
    bool has(base::flags f) const { return (question_.flags & f) != base::flags(); }

    bool is_name() const {
        error_code ec;
        boost::asio::ip::make_address(question_.host, ec);
        return ec && !has(base::numeric_host) && !question_.host.empty();
    }

    results resolve(resolver& r, const std::string& host, base::flags flags, error_code& ec) const {
        return question_.protocol
                   ? r.resolve(*question_.protocol, host, question_.service, flags, ec)
                   : r.resolve(host, question_.service, flags, ec);
    }

    error_code prepare(resolver& local) {
        error_code ec;
        if (!question_.service.empty()) {
            const results r =
                resolve(local, std::string(), question_.flags & base::numeric_service, ec);
            if (ec)
                return ec;
            port_ = r.begin()->endpoint().port();
        }
        const int family = question_.protocol ? question_.protocol->family() : AF_UNSPEC;
        is_mapped_ = family == AF_INET6 && has(base::v4_mapped);
        bool v4 = family != AF_INET6 || is_mapped_, v6 = family != AF_INET;
        if (has(base::address_configured)) {
            v4 = v4 && is_configured(local, Protocol::v4(), "0.0.0.0");
            v6 = v6 && is_configured(local, Protocol::v6(), "::");
        }
        family_ = v4 && v6 ? AF_UNSPEC : v4 ? AF_INET : AF_INET6;
        return v4 || v6 ? error_code() : boost::asio::error::host_not_found;
    }

    static bool is_configured(resolver& local, const Protocol& protocol, const char* any) {
        error_code ec;
        local.resolve(protocol, any, "", base::numeric_host | base::address_configured, ec);
        return !ec;
    }

    void send(ares_channel channel) override {
        ares_addrinfo_hints hints{};
        hints.ai_family = family_;
        hints.ai_flags = has(base::canonical_name) ? ARES_AI_CANONNAME : 0;
        ares_getaddrinfo(channel, question_.host.c_str(), nullptr, &hints, &on_answer, this);
    }

    static void on_answer(void* self, int status, int, ares_addrinfo* info) {
        static_cast<ares_lookup*>(self)->receive(status, info);
        ares_freeaddrinfo(info);
    }

    void receive(int status, const ares_addrinfo* info) {
        if (status == ARES_ENODATA || (!status && !info->nodes)) // the name exists
            status = ARES_ENOTFOUND;
        this->answer(c_ares_error_code(status), [&] { return status ? results() : list(*info); });
    }

    results list(const ares_addrinfo& info) const {
        std::vector<endpoint> endpoints;
        bool has_v6 = false;
        for (const ares_addrinfo_node* n = info.nodes; n; n = n->ai_next) {
            endpoints.push_back(make_endpoint(*n->ai_addr));
            has_v6 = has_v6 || n->ai_family == AF_INET6;
        }
        if (is_mapped_ && has_v6 && !has(base::all_matching))
            endpoints.erase(std::remove_if(endpoints.begin(), endpoints.end(),
                                           [](const endpoint& e) {
                                               return e.address().to_v6().is_v4_mapped();
                                           }),
                            endpoints.end());
        return results::create(endpoints.begin(), endpoints.end(), name(info), question_.service);
    }

    endpoint make_endpoint(const ::sockaddr& a) const {
        using namespace boost::asio::ip;
        if (a.sa_family == AF_INET6) {
            ::sockaddr_in6 in6;
            std::memcpy(&in6, &a, sizeof(in6));
            address_v6::bytes_type bytes;
            std::memcpy(bytes.data(), &in6.sin6_addr, bytes.size());
            return endpoint(address_v6(bytes, in6.sin6_scope_id), port_);
        }
        ::sockaddr_in in;
        std::memcpy(&in, &a, sizeof(in));
        address_v4::bytes_type bytes;
        std::memcpy(bytes.data(), &in.sin_addr, bytes.size());
        if (is_mapped_)
            return endpoint(make_address_v6(v4_mapped, address_v4(bytes)), port_);
        return endpoint(address_v4(bytes), port_);
    }

    std::string name(const ares_addrinfo& info) const {
        if (!has(base::canonical_name))
            return question_.host;
        const char* last = info.name;
        for (const ares_addrinfo_cname* c = info.cnames; c; c = c->next)
            if (c->name)
                last = c->name;
        return last ? last : question_.host;
    }

    const ares_question<Protocol> question_;
    unsigned short port_ = 0;
    int family_ = AF_UNSPEC;
    bool is_mapped_ = false; // IPv4 addresses are given as IPv6 addresses
};

/// The names of an address and a port. The system's getnameinfo has the name of the port.
template <class Protocol>
class ares_reverse_lookup final
    : public ares_request_for<boost::asio::ip::basic_resolver_results<Protocol>> {
    using results = boost::asio::ip::basic_resolver_results<Protocol>;
    using endpoint = typename Protocol::endpoint;

public:
    explicit ares_reverse_lookup(const endpoint& e) : endpoint_(e) {}

    bool is_answered_at_once(const ares_session::executor_type&) {
        const bool is_datagram = endpoint_.protocol().type() == SOCK_DGRAM;
        char name[NI_MAXSERV];
        const bool has_name =
            ::getnameinfo(endpoint_.data(), static_cast<::socklen_t>(endpoint_.size()), nullptr, 0,
                          name, sizeof(name), is_datagram ? NI_DGRAM : 0) == 0;
        service_ = has_name ? name : std::to_string(endpoint_.port());
        return false;
    }

private:
    void send(ares_channel channel) override {
        if (endpoint_.address().is_v6())
            send(channel, endpoint_.address().to_v6().to_bytes());
        else
            send(channel, endpoint_.address().to_v4().to_bytes());
    }

    template <class Bytes>
    void send(ares_channel channel, const Bytes& address) {
        ares_gethostbyaddr(channel, address.data(), static_cast<int>(address.size()),
                           endpoint_.protocol().family(), &on_answer, this);
    }

    static void on_answer(void* self, int status, int, ::hostent* host) {
        static_cast<ares_reverse_lookup*>(self)->receive(status, host);
    }

    void receive(int status, const ::hostent* host) {
        const bool has_no_name = status == ARES_ENOTFOUND || status == ARES_ENODATA;
        this->answer(c_ares_error_code(has_no_name ? ARES_SUCCESS : status), [&] {
            if (has_no_name)
                return results::create(endpoint_, endpoint_.address().to_string(), service_);
            return status ? results() : results::create(endpoint_, host->h_name, service_);
        });
    }

    const endpoint endpoint_;
    std::string service_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_ARES_LOOKUP_HPP
