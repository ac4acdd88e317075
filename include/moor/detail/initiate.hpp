//
// moor/detail/initiate.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// How an initiating function begins, what it returns, and which arguments it takes. A token that
// does not fit the completion signature takes the function out of overload resolution, so that the
// compiler's error is at the caller's line. With concepts, Asio sees to most of this; without, it
// checks nothing.
//

#ifndef MOOR_DETAIL_INITIATE_HPP
#define MOOR_DETAIL_INITIATE_HPP

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/execution/bad_executor.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution/executor.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/query.hpp>
#include <boost/throw_exception.hpp>

#include <type_traits>
#include <utility>

namespace moor {
namespace detail {

/// Whether an object has a handle.
template <class T, class = void>
struct is_handle_owner : std::false_type {};
template <class T>
struct is_handle_owner<T, std::void_t<decltype(std::declval<T&>().native_handle())>>
    : std::is_convertible<decltype(std::declval<T&>().native_handle()), int> {};

/// Whether an object is an execution context.
template <class T>
inline constexpr bool is_context_v =
    std::is_convertible<T&, boost::asio::execution_context&>::value;

/// The execution context of an executor of either kind.
template <class Executor>
boost::asio::execution_context& context_of(const Executor& ex) {
    if constexpr (std::is_same<Executor, boost::asio::any_io_executor>::value)
        if (!ex) // for which query() returns a null reference
            boost::throw_exception(boost::asio::execution::bad_executor());
    if constexpr (boost::asio::execution::is_executor<Executor>::value)
        return boost::asio::query(ex, boost::asio::execution::context);
    else
        return ex.context();
}

template <class Token, class Signature, class = void>
struct is_plain_handler : std::false_type {};

template <class Token, class Signature>
struct is_plain_handler<
    Token, Signature,
    std::void_t<typename boost::asio::async_result<Token, Signature>::completion_handler_type>>
    : std::is_same<Token,
                   typename boost::asio::async_result<Token, Signature>::completion_handler_type> {
};

/// Whether a token can be told what the signature says. A token that is the handler itself has to
/// be callable; any other token says so itself, or not, when it is used.
template <class Token, class Signature>
struct accepts;

template <class Token, class... Args>
struct accepts<Token, void(Args...)>
    : std::disjunction<std::negation<is_plain_handler<Token, void(Args...)>>,
                       std::is_invocable<Token, Args...>> {};

/// What the initiating function returns. No type if the token does not fit; the compiler's message
/// names this class, and with it the signature and the token.
template <class Enable, class Signature, class Token, class Initiation, class... Args>
struct completion_token_for {};

template <class Signature, class Token, class Initiation, class... Args>
struct completion_token_for<
    std::enable_if_t<
        accepts<std::decay_t<Token>, Signature>::value,
        std::void_t<decltype(boost::asio::async_initiate<Token, Signature>(
            std::declval<Initiation>(), std::declval<Token&>(), std::declval<Args>()...))>>,
    Signature, Token, Initiation, Args...> {
    using type = decltype(boost::asio::async_initiate<Token, Signature>(
        std::declval<Initiation>(), std::declval<Token&>(), std::declval<Args>()...));
};

template <class Signature, class Token, class Initiation, class... Args>
using initiated = typename completion_token_for<void, Signature, Token, Initiation, Args...>::type;

/// Starts an operation, now or later, as the token wants it.
template <class Signature, class Token, class Initiation, class... Args>
auto initiate(Initiation initiation, Token& token, Args&&... args)
    -> initiated<Signature, Token, Initiation, Args...> {
    return boost::asio::async_initiate<Token, Signature>(std::move(initiation), token,
                                                         std::forward<Args>(args)...);
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_INITIATE_HPP
