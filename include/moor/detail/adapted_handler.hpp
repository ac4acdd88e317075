//
// moor/detail/adapted_handler.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A handler that is told something else than what the operation beneath it has to say.
//

#ifndef MOOR_DETAIL_ADAPTED_HANDLER_HPP
#define MOOR_DETAIL_ADAPTED_HANDLER_HPP

#include <moor/error.hpp>

#include <boost/asio/associator.hpp>

#include <utility>

namespace moor {
namespace detail {

/// `adapt(handler, arguments...)` calls the handler. All that is associated with the handler is
/// associated with this.
template <class Handler, class Adapt>
struct adapted_handler {
    Handler handler;
    Adapt adapt;

    template <class... Args>
    void operator()(Args&&... args) {
        adapt(std::move(handler), std::forward<Args>(args)...);
    }
};

template <class Handler, class Adapt>
adapted_handler<Handler, Adapt> adapt_handler(Handler&& handler, Adapt adapt) {
    return {std::move(handler), std::move(adapt)};
}

/// Says `ec`, whatever the operation says.
struct say_error {
    error_code ec;

    template <class Handler>
    void operator()(Handler&& handler, const error_code&) const {
        std::move(handler)(ec);
    }
    template <class Handler, class Value>
    void operator()(Handler&& handler, const error_code&, Value) const {
        std::move(handler)(ec, Value());
    }
};

/// Leaves the event out.
struct say_no_event {
    template <class Handler, class Event>
    void operator()(Handler&& handler, const error_code& ec, const Event&) const {
        std::move(handler)(ec);
    }
};

} // namespace detail
} // namespace moor

namespace boost {
namespace asio {

template <template <typename, typename> class Associator, typename Handler, typename Adapt,
          typename DefaultCandidate>
struct associator<Associator, ::moor::detail::adapted_handler<Handler, Adapt>, DefaultCandidate>
    : Associator<Handler, DefaultCandidate> {
    // (Not for the immediate executor, which always has a candidate.)
    static typename Associator<Handler, DefaultCandidate>::type
    get(const ::moor::detail::adapted_handler<Handler, Adapt>& h) noexcept {
        return Associator<Handler, DefaultCandidate>::get(h.handler);
    }
    static auto get(const ::moor::detail::adapted_handler<Handler, Adapt>& h,
                    const DefaultCandidate& candidate) noexcept
        -> decltype(Associator<Handler, DefaultCandidate>::get(h.handler, candidate)) {
        return Associator<Handler, DefaultCandidate>::get(h.handler, candidate);
    }
};

} // namespace asio
} // namespace boost

#endif // MOOR_DETAIL_ADAPTED_HANDLER_HPP
