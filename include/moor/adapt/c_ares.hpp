//
// moor/adapt/c_ares.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Names, addresses and all other records of the DNS, by the library c-ares: a resolver without a
// thread, whose operations end at once when they are cancelled. Needs c-ares 1.18 or later; link
// with -lcares.
//
// The library's contract, as the adapter keeps it:
//
// - Any call of c-ares may report that a socket has to be watched. c-ares withdraws a socket just
//   before c-ares closes the socket, mostly while an event of this socket is handled. The watcher
//   ends there.
// - Timeouts pass without an event. The adapter asks for the next timeout after each call. c-ares
//   1.18 rounds down to milliseconds, so the adapter waits a millisecond longer.
// - c-ares can't cancel a single query. The adapter completes the operation, drops the late answer,
//   and cancels all queries when no operation is pending any more.
// - Too many answers at once overflow the receive buffer of the one UDP socket, and each lost
//   answer costs a timeout. The adapter limits the number of operations in flight.
// - c-ares 1.18 writes to TCP connections without MSG_NOSIGNAL. The adapter reads first, which
//   notices the end of the connection.
// - From 1.34 on, c-ares holds the lock of the channel during a callback. So the adapter calls no
//   function of c-ares there. The function of ares_set_pending_write_cb is not set: then c-ares
//   writes at once, without blocking.
//
// What blocks: c-ares reads small files, /etc/resolv.conf and some others once in the constructor,
// and /etc/hosts for each lookup of a host. A service with a name is looked up by getaddrinfo,
// which reads /etc/services. There is no other blocking call, and no thread.
//
// Threads: all members of a resolver have to be called on its executor, which has to be a strand if
// several threads run the context.
//
// Lifetimes: the resolver owns the channel, and may outlive the execution context. The destructor
// completes pending operations with operation_aborted. Functions that the program gives to c-ares
// (ares_set_socket_callback) run within the adapter, and must not use the resolver.
//
// An example: example/resolve.cpp.
//

#ifndef MOOR_ADAPT_C_ARES_HPP
#define MOOR_ADAPT_C_ARES_HPP

#include <moor/adapt/c_ares_types.hpp>
#include <moor/adapt/detail/ares_lookup.hpp>
#include <moor/adapt/detail/ares_session.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/ip/basic_resolver_results.hpp>
#include <boost/asio/ip/resolver_base.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <ares.h>

namespace moor {
namespace adapt {

/// A resolver like `boost::asio::ip::tcp::resolver`, by c-ares.
/**
 * The overloads of `async_resolve` and their results are those of
 * `boost::asio::ip::basic_resolver`. There is no `resolve`, which would block. `async_query` asks
 * for records of any type.
 *
 * @par Where The Answers Come From
 * For a name, c-ares reads `/etc/hosts`, and then asks the servers of `/etc/resolv.conf` or of the
 * options, also for the name in the search domains. c-ares does not use other modules of the
 * system's `nsswitch.conf`, such as mDNS. For numeric hosts and for services, the adapter calls the
 * system's `getaddrinfo`, which asks no server for them. c-ares asks again by TCP if an answer does
 * not fit in a datagram. The order of the addresses is that of `getaddrinfo` (RFC 6724).
 *
 * @par Operations At Once
 * Any number of operations may be pending. At most `c_ares_options::max_in_flight` are in flight at
 * the same time; the others wait for their turn, in order.
 *
 * @par Cancellation
 * For each type of cancellation, the operation completes with `operation_aborted` at once, and its
 * late answer is dropped. When c-ares has only cancelled operations left, the adapter calls
 * `ares_cancel`, and watches no socket any more.
 *
 * @par Errors
 * `boost::asio::error::host_not_found`: the name does not exist, or `async_resolve` has found no
 * address. @n
 * `boost::asio::error::no_data`: `async_query` has found the name, but no record of this type. @n
 * `boost::asio::error::service_not_found`: there is no such service. @n
 * `c_ares_error`: no server answered, or the answer was an error. (Asio's resolver has
 * `host_not_found_try_again` for these.) @n
 * `operation_aborted`: the operation was cancelled, or the resolver was destroyed. @n
 * `invalid_argument`: `async_query` was called with a class or a type beyond 65535. @n
 * `no_memory`: there was no memory for c-ares (`ARES_ENOMEM`), or to watch a socket of c-ares. @n
 * An error of a watcher, if the socket of c-ares can't be watched.
 *
 * @tparam InternetProtocol The protocol, such as `boost::asio::ip::tcp`.
 * @tparam Executor The type of the I/O executor, which converts to `boost::asio::any_io_executor`.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A resolver alone does not: without a pending
 * operation, no socket is watched, even if the option `ARES_FLAG_STAYOPEN` keeps the sockets open.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members, and c-ares' functions on this channel, have to be
 * called on the executor, which has to be a strand if several threads run the execution context.
 *
 * @par Lifetimes
 * When a resolver is destroyed, its operations complete with `operation_aborted`. A resolver may
 * outlive its execution context, and be destroyed then. An operation goes on when its resolver is
 * moved. A resolver that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<tcp::socket> connect(asio::io_context& io) {
 *     moor::adapt::c_ares_resolver resolver(io);
 *     auto endpoints = co_await resolver.async_resolve("www.example.com", "https",
 *                                                      asio::use_awaitable);
 *     tcp::socket s(io);
 *     co_await asio::async_connect(s, endpoints, asio::use_awaitable);
 *     co_return s;
 * }
 * @endcode
 */
template <class InternetProtocol, class Executor = boost::asio::any_io_executor>
class basic_c_ares_resolver : public boost::asio::ip::resolver_base {
    using session = detail::ares_session;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    using question = detail::ares_question<InternetProtocol>;

    // What an initiating function does, once its token says so.
    template <class Request>
    struct initiation {
        using executor_type = Executor;

        session* target;
        executor_type executor;

        executor_type get_executor() const noexcept { return executor; }
        template <class Handler, class... Args>
        void operator()(Handler&& handler, Args&&... args) const {
            target->template start<Request>(std::forward<Handler>(handler),
                                            std::forward<Args>(args)...);
        }
    };
    using lookup = detail::ares_lookup<InternetProtocol>;
    using reverse_lookup = detail::ares_reverse_lookup<InternetProtocol>;
    using record_query = detail::ares_query_request;

    template <class Signature, class Token, class Request, class... Args>
    using initiated = moor::detail::initiated<Signature, Token, initiation<Request>, Args...>;

    template <class Signature, class Request, class Token, class... Args>
    auto start(Token& token, Args... args) -> initiated<Signature, Token, Request, Args...> {
        return moor::detail::initiate<Signature, Token>(
            initiation<Request>{session_.get(), get_executor()}, token, std::move(args)...);
    }

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = ares_channel;

    /// The type of the protocol.
    using protocol_type = InternetProtocol;

    /// The type of an endpoint.
    using endpoint_type = typename InternetProtocol::endpoint;

    /// The type of the results, as of `boost::asio::ip::basic_resolver`.
    using results_type = boost::asio::ip::basic_resolver_results<InternetProtocol>;

    /// The resolver's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The resolver's type.
        using other = basic_c_ares_resolver<InternetProtocol, OtherExecutor>;
    };

private:
    using results_signature = void(error_code, results_type);
    using answer_signature = void(error_code, c_ares_answer);

public:
    /// Constructs a resolver, and reads the configuration of the system.
    /**
     * @param ex The I/O executor.
     * @param options The servers, the timeout and other options.
     * @throws boost::system::system_error If c-ares does not accept the options, or if memory runs
     * out.
     */
    explicit basic_c_ares_resolver(const executor_type& ex, const c_ares_options& options = {})
        : session_(std::make_unique<session>(ex, options)), executor_(ex) {}
    /// Constructs a resolver, and reads the configuration of the system.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param options The servers, the timeout and other options.
     * @throws boost::system::system_error As the other overload does.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_c_ares_resolver(Context& context, const c_ares_options& options = {})
        : basic_c_ares_resolver(executor_type(context.get_executor()), options) {}

    /// Moves a resolver, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_c_ares_resolver(basic_c_ares_resolver&& other) noexcept = default;
    /// Moves a resolver with another type of executor, with its pending operations.
    /**
     * With this constructor, a token's `as_default_on` takes a resolver.
     *
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_c_ares_resolver(basic_c_ares_resolver<InternetProtocol, OtherExecutor>&& other)
        : session_(std::move(other.session_)), executor_(std::move(other.executor_)) {}
    /// Ends the present operations, as the destructor does, and moves another resolver.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_c_ares_resolver& operator=(basic_c_ares_resolver&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and destroys the channel.
    ~basic_c_ares_resolver() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return executor_.get_executor(); }

    /// Returns the channel, for settings such as `ares_set_sortlist` and `ares_set_local_ip4`.
    /**
     * The adapter does not wait for queries which the program starts on the channel, and may cancel
     * such queries by `ares_cancel`.
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Completes all pending operations with `operation_aborted`. The resolver can be used again.
    void cancel() { session_->cancel(); }

    /// Finds the addresses of a host.
    /**
     * @param host The name of a host, or a numeric address. Empty: this host.
     * @param service The name of a service, or the number of a port. Empty: port 0.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, results_type) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends at once.
     * @par Example
     * @code
     * auto endpoints = co_await r.async_resolve("www.example.com", "443", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_resolve(std::string_view host, std::string_view service,
                       Token&& token = default_token())
        -> initiated<results_signature, Token, lookup, question> {
        return start<results_signature, lookup, Token>(
            token, question{{}, std::string(host), std::string(service), flags()});
    }

    /// Finds the addresses of a host.
    /**
     * @param host The name of a host, or a numeric address. Empty: this host.
     * @param service The name of a service, or the number of a port. Empty: port 0.
     * @param resolve_flags The flags of `boost::asio::ip::resolver_base`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, results_type) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends at once.
     * @par Example
     * @code
     * r.async_resolve("192.0.2.7", "443", r.numeric_host | r.numeric_service, handler);
     * @endcode
     */
    template <class Token = default_token>
    auto async_resolve(std::string_view host, std::string_view service, flags resolve_flags,
                       Token&& token = default_token())
        -> initiated<results_signature, Token, lookup, question> {
        return start<results_signature, lookup, Token>(
            token, question{{}, std::string(host), std::string(service), resolve_flags});
    }

    /// Finds the addresses of a host for one version of the Internet protocol.
    /**
     * @param protocol The protocol, such as `tcp::v6()`.
     * @param host The name of a host, or a numeric address. Empty: this host.
     * @param service The name of a service, or the number of a port. Empty: port 0.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, results_type) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends at once.
     * @par Example
     * @code
     * auto v4 = co_await r.async_resolve(tcp::v4(), "www.example.com", "443", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_resolve(const protocol_type& protocol, std::string_view host,
                       std::string_view service, Token&& token = default_token())
        -> initiated<results_signature, Token, lookup, question> {
        return start<results_signature, lookup, Token>(
            token, question{protocol, std::string(host), std::string(service), flags()});
    }

    /// Finds the addresses of a host for one version of the Internet protocol.
    /**
     * @param protocol The protocol, such as `tcp::v6()`.
     * @param host The name of a host, or a numeric address. Empty: this host.
     * @param service The name of a service, or the number of a port. Empty: port 0.
     * @param resolve_flags The flags of `boost::asio::ip::resolver_base`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, results_type) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends at once.
     * @par Example
     * @code
     * r.async_resolve(tcp::v6(), "www.example.com", "443", r.v4_mapped | r.all_matching, handler);
     * @endcode
     */
    template <class Token = default_token>
    auto async_resolve(const protocol_type& protocol, std::string_view host,
                       std::string_view service, flags resolve_flags,
                       Token&& token = default_token())
        -> initiated<results_signature, Token, lookup, question> {
        return start<results_signature, lookup, Token>(
            token, question{protocol, std::string(host), std::string(service), resolve_flags});
    }

    /// Finds the names of an address and of a port.
    /**
     * The results have one entry. An address or a port without a name is given as a number, and so
     * is an address for which no server has answered: c-ares does not report the difference.
     *
     * @param endpoint The address and the port.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, results_type) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends at once.
     * @par Example
     * @code
     * auto names = co_await r.async_resolve(socket.remote_endpoint(), asio::use_awaitable);
     * std::cout << names->host_name() << '\n';
     * @endcode
     */
    template <class Token = default_token>
    auto async_resolve(const endpoint_type& endpoint, Token&& token = default_token())
        -> initiated<results_signature, Token, reverse_lookup, endpoint_type> {
        return start<results_signature, reverse_lookup, Token>(token, endpoint);
    }

    /// Asks for records of any type.
    /**
     * c-ares asks for the name as it is, without search domains and without `/etc/hosts`. If a
     * server has reported an error, the operation completes with the error and the server's answer,
     * unless c-ares has discarded the answer.
     *
     * @param name The domain name.
     * @param dns_class The class, up to 65535; 1 is the Internet's (`ns_c_in`).
     * @param type The type of the records, up to 65535, such as `ns_t_srv` of `<arpa/nameser.h>`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, c_ares_answer) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends at once.
     * @par Example
     * @code
     * moor::adapt::c_ares_answer a = co_await r.async_query("example.com", ns_c_in, ns_t_mx,
     *                                                       asio::use_awaitable);
     * ares_mx_reply* hosts = nullptr;
     * if (ares_parse_mx_reply(a.data(), static_cast<int>(a.size()), &hosts) == ARES_SUCCESS)
     *     for (ares_mx_reply* h = hosts; h; h = h->next)
     *         std::cout << h->priority << ' ' << h->host << '\n';
     * ares_free_data(hosts);
     * @endcode
     */
    template <class Token = default_token>
    auto async_query(std::string_view name, int dns_class, int type,
                     Token&& token = default_token())
        -> initiated<answer_signature, Token, record_query, std::string, int, int> {
        return start<answer_signature, record_query, Token>(token, std::string(name), dns_class,
                                                            type);
    }

private:
    template <class OtherProtocol, class OtherExecutor>
    friend class basic_c_ares_resolver;

    std::unique_ptr<session> session_;
    basic_registration<Executor> executor_; // has no handle, and releases it with the context
};

/// A resolver for TCP on any I/O executor: in place of `boost::asio::ip::tcp::resolver`.
using c_ares_resolver = basic_c_ares_resolver<boost::asio::ip::tcp>;

/// A resolver for UDP on any I/O executor: in place of `boost::asio::ip::udp::resolver`.
using c_ares_udp_resolver = basic_c_ares_resolver<boost::asio::ip::udp>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_C_ARES_HPP
