//
// moor/adapt/detail/redis_guard.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Refuses replies for which no command waits, such as the greeting "+OK" of a server of another
// protocol. hiredis would end the program by an assertion. The function that makes the object of
// the reply returns a null pointer. hiredis takes this for a lack of memory, and ends the
// connection.
//

#ifndef MOOR_ADAPT_DETAIL_REDIS_GUARD_HPP
#define MOOR_ADAPT_DETAIL_REDIS_GUARD_HPP

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

namespace moor {
namespace adapt {
namespace detail {

/// The functions of a context that make objects of replies; they tell the Session first.
template <class Session>
class redis_guard {
    using functions = redisReplyObjectFunctions;

public:
    static void install(redisAsyncContext& c) {
        static functions guarded = guards_of(*c.c.reader->fn);
        c.c.reader->fn = &guarded;
        c.c.reader->privdata = &c;
    }

private:
    static inline functions original{};

    static functions guards_of(const functions& f) {
        using task = const redisReadTask*;
        functions g = original = f;
        g.createString = [](task t, auto... a) { return make(original.createString, t, a...); };
        g.createArray = [](task t, auto... a) { return make(original.createArray, t, a...); };
        g.createInteger = [](task t, auto... a) { return make(original.createInteger, t, a...); };
        g.createNil = [](task t) { return make(original.createNil, t); };
#if HIREDIS_MAJOR >= 1
        g.createDouble = [](task t, auto... a) { return make(original.createDouble, t, a...); };
        g.createBool = [](task t, auto... a) { return make(original.createBool, t, a...); };
#endif
        return g;
    }

    template <class Create, class... Args>
    static void* make(Create create, const redisReadTask* task, Args... args) noexcept {
        auto* const c = static_cast<redisAsyncContext*>(task->privdata);
        if (is_expected(*task, *c))
            return create(task, args...);
        Session::on_unexpected(c);
        return nullptr;
    }

    static bool is_expected(const redisReadTask& task, const redisAsyncContext& c) noexcept {
        if (task.parent || task.type == REDIS_REPLY_ERROR || c.replies.head)
            return true;
#if HIREDIS_MAJOR >= 1
        if (task.type == REDIS_REPLY_PUSH)
            return true;
#endif
        return (c.c.flags & (REDIS_SUBSCRIBED | REDIS_MONITORING)) != 0;
    }
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_REDIS_GUARD_HPP
