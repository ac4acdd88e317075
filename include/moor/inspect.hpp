//
// moor/inspect.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// moor.hpp does not include this header: the header needs Boost.Beast, and few programs use an
// inspector.
//

#ifndef MOOR_INSPECT_HPP
#define MOOR_INSPECT_HPP

#include <moor/detail/inspect_server.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/error.hpp>
#include <moor/inspector_options.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/execution_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <memory>
#include <string>

namespace moor {

/// Serves a live table of a context's registrations to a browser, over HTTP.
/**
 * The inspector listens on a loopback address. The page at this address shows each registration:
 * the descriptor, what the kernel calls the descriptor, the registration's name, which events the
 * pending operations wait for and for how long, the events a second, and the readiness checks. The
 * page updates itself, and can be sorted. The page marks a registration with an operation that has
 * been pending for longer than `inspector_options::stuck_after`. `/registrations.json` has the same
 * data as JSON. A browser can change nothing.
 *
 * The inspector runs on a thread of its own, so that the page also shows a loop which is blocked,
 * and says for how long the loop has not turned. To find out, the thread posts an empty item to the
 * loop in each `inspector_options::interval`, unless the previous item is still queued. (The thread
 * can't ask a context without locks, such as one with `BOOST_ASIO_CONCURRENCY_HINT_UNSAFE`.)
 * Operations pay nothing for the inspector: an operation counts as pending from the first sample
 * which has the operation.
 *
 * Each user of the same machine may connect to the address, and sees the descriptors, the paths of
 * open files, and the names of the registrations.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 *
 * @par Lifetimes
 * The context may be destroyed before the inspector, which then shows no registrations. The
 * inspector's destructor ends all connections and waits for the thread, and must not run at the
 * same time as the context's destructor. After a `fork`, the child's copy of the inspector serves
 * nothing.
 *
 * @par Example
 * @code
 * boost::asio::io_context io;
 * moor::inspector inspector(io);
 * std::cerr << "registrations: " << inspector.url() << '\n';
 * io.run();
 * @endcode
 */
class inspector {
public:
    /// Starts to serve.
    /**
     * @param context The execution context whose registrations the page shows.
     * @param options Where to listen, how often to take a sample, and what counts as stuck.
     *
     * @throws boost::system::system_error With the errors of the other overload.
     */
    explicit inspector(boost::asio::execution_context& context, inspector_options options = {}) {
        error_code ec;
        start(context, options, ec);
        detail::throw_if(ec, "moor::inspector::inspector", options.endpoint.port());
    }

    /// Starts to serve. After an error, the inspector serves nothing, and `url()` is empty.
    /**
     * @param context The execution context whose registrations the page shows.
     * @param options Where to listen, how often to take a sample, and what counts as stuck.
     * @param ec The error: `boost::system::errc::operation_not_permitted` if the address is not a
     *     loopback address and `options.allow_remote` is not set; `invalid_argument` if a duration
     *     is not positive; or the error of `socket(2)`, `bind(2)` or `listen(2)`, or of starting a
     *     thread.
     */
    inspector(boost::asio::execution_context& context, inspector_options options, error_code& ec) {
        start(context, options, ec);
    }

    /// Takes over another inspector, which serves nothing afterwards.
    inspector(inspector&&) noexcept = default;

    /// Ends what this inspector serves, and takes over another inspector.
    inspector& operator=(inspector&&) noexcept = default;

    /// Returns the address of the page, such as `http://127.0.0.1:40123/`; empty if there is none.
    std::string url() const { return server_ ? server_->url() : std::string(); }

    /// Returns where the inspector listens.
    boost::asio::ip::tcp::endpoint local_endpoint() const {
        return server_ ? server_->local_endpoint() : boost::asio::ip::tcp::endpoint();
    }

private:
    void start(boost::asio::execution_context& context, const inspector_options& options,
               error_code& ec) {
        server_ptr server(new detail::inspect_server(context, options));
        server->start(ec);
        if (!ec)
            server_ = std::move(server);
    }

    /// In the child of a fork there is no thread, and the sockets are the parent's.
    struct deleter {
        void operator()(detail::inspect_server* s) const noexcept {
            if (s->is_of_this_process())
                delete s;
        }
    };
    using server_ptr = std::unique_ptr<detail::inspect_server, deleter>;

    server_ptr server_;
};

} // namespace moor

#endif // MOOR_INSPECT_HPP
