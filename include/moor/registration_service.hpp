//
// moor/registration_service.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_REGISTRATION_SERVICE_HPP
#define MOOR_REGISTRATION_SERVICE_HPP

#include <moor/detail/service_core.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/execution_context.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

namespace moor {

/// A picture of one registered handle, for people and for tests.
struct registration_info {
    /// The handle.
    int native_handle = -1;
    /// How its readiness is believed.
    trigger mode = trigger::level;
    /// The union of what is waited for now.
    interest waited_for;
    /// The cached readiness.
    readiness cached;
    /// Events seen so far for reading.
    std::uint32_t read_tick = 0;
    /// Events seen so far for writing.
    std::uint32_t write_tick = 0;
    /// Out-of-band events seen so far.
    std::uint32_t priority_tick = 0;
    /// How many waits are pending.
    std::size_t waiters = 0;
    /// Whether the read waker is armed in the reactor, or fired and on its way back.
    bool read_armed = false;
    /// The same of the write waker.
    bool write_armed = false;
    /// The same of the priority waker.
    bool priority_armed = false;
    /// Whether the reactor knows the handle: from the first wait that had to park.
    bool attached = false;
    /// Whether the handle is of a kind that can't be polled, and so never blocks.
    bool always_ready = false;
};

/// Counts since the service was made. They only grow.
struct registration_metrics {
    /// Handles registered.
    std::uint64_t registered = 0;
    /// Registrations ended.
    std::uint64_t deregistered = 0;
    /// Waits started.
    std::uint64_t waits_started = 0;
    /// Of these, completed at once, errors too.
    std::uint64_t waits_completed_at_once = 0;
    /// Of these, parked.
    std::uint64_t waits_parked = 0;
    /// Waits that ended with `operation_aborted` or `gone`.
    std::uint64_t waits_cancelled = 0;
    /// Events that completed a wait.
    std::uint64_t events_delivered = 0;
    /// Events that no wait claimed.
    std::uint64_t events_unclaimed = 0;
    /// Times that the kernel was asked with `poll(2)`.
    std::uint64_t verifications = 0;
};

/// The Asio service that owns the scheduled states of an execution context.
/**
 * It is made by the first registration of a context, or by `use_registration_service(ctx)`.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Safe.
 */
class registration_service : public boost::asio::execution_context::service {
public:
    /// Identifies the service in its context.
    static inline boost::asio::execution_context::id id;

    /// Makes the service. Call `use_registration_service` instead.
    /**
     * The context's reactor is made first, so that it is shut down after this service.
     */
    explicit registration_service(boost::asio::execution_context& context)
        : boost::asio::execution_context::service(context),
          core_(new detail::service_core(context)) {}

    ~registration_service() override { core_->destroyed(); }

    /// Ends every registration: pending waits complete with `error::gone`, and so does every
    /// later wait and registration. No handle is closed. It can't be undone.
    void close() { core_->close(); }

    /// Whether `close()` was called, or the context is being shut down.
    bool is_closed() const noexcept { return core_->is_closed(); }

    /// The counts of all handles, past and present, added up.
    registration_metrics metrics() const {
        detail::service_core::totals t = core_->sum();
        registration_metrics m;
        m.registered = t.registered;
        m.deregistered = t.deregistered;
        m.waits_started = t.waits.started;
        m.waits_completed_at_once = t.waits.immediate;
        m.waits_parked = t.waits.started - t.waits.immediate;
        m.waits_cancelled = t.waits.cancelled;
        m.events_delivered = t.waits.events - t.waits.unclaimed;
        m.events_unclaimed = t.waits.unclaimed;
        m.verifications = t.waits.verifications;
        return m;
    }

    /// What is registered now, by handle.
    std::vector<registration_info> snapshot() const {
        std::vector<registration_info> v;
        for (const detail::scheduled_io_info& i : core_->infos()) {
            registration_info r;
            r.native_handle = i.handle;
            r.mode = i.mode;
            r.waited_for = i.waited_for;
            r.cached = i.cached;
            r.read_tick = i.tick.read;
            r.write_tick = i.tick.write;
            r.priority_tick = i.tick.priority;
            r.waiters = i.waiters;
            r.read_armed = i.armed[detail::read_channel];
            r.write_armed = i.armed[detail::write_channel];
            r.priority_armed = i.armed[detail::priority_channel];
            r.attached = i.attached;
            r.always_ready = i.always_ready;
            v.push_back(r);
        }
        return v;
    }

    /// Prints the snapshot as a table, and the metrics below it.
    void dump(std::ostream& os) const {
        static constexpr std::size_t columns = 8;
        using row = std::array<std::string, columns>;
        std::vector<row> rows{{"handle", "trigger", "waiters", "waiting for", "cached", "armed",
                               "reactor", "ticks r/w/p"}};
        for (const registration_info& i : snapshot()) {
            std::string armed;
            armed += i.read_armed ? 'r' : '-';
            armed += i.write_armed ? 'w' : '-';
            armed += i.priority_armed ? 'p' : '-';
            rows.push_back({std::to_string(i.native_handle),
                            i.mode == trigger::edge ? "edge" : "level", std::to_string(i.waiters),
                            text(i.waited_for), text(i.cached), armed,
                            i.always_ready ? "always"
                            : i.attached   ? "yes"
                                           : "no",
                            std::to_string(i.read_tick) + '/' + std::to_string(i.write_tick) + '/' +
                                std::to_string(i.priority_tick)});
        }
        std::array<std::size_t, columns> widths{};
        for (const row& r : rows)
            for (std::size_t c = 0; c != columns; ++c)
                widths[c] = std::max(widths[c], r[c].size());
        std::string out;
        for (const row& r : rows) {
            for (std::size_t c = 0; c + 1 != columns; ++c)
                out += r[c] + std::string(widths[c] - r[c].size() + 2, ' ');
            out += r.back() + '\n';
        }
        registration_metrics m = metrics();
        os << out + "registered " + std::to_string(m.registered) + ", deregistered " +
                  std::to_string(m.deregistered) + "; waits " + std::to_string(m.waits_started) +
                  " (at once " + std::to_string(m.waits_completed_at_once) + ", parked " +
                  std::to_string(m.waits_parked) + ", cancelled " +
                  std::to_string(m.waits_cancelled) + "); events delivered " +
                  std::to_string(m.events_delivered) + ", unclaimed " +
                  std::to_string(m.events_unclaimed) + "; verifications " +
                  std::to_string(m.verifications) + "; reactor " + detail::reactor_port::name +
                  '\n';
    }

    /// How many operations in a row may complete inline on one thread through an associated
    /// immediate executor before one is posted.
    unsigned inline_budget() const noexcept {
        return core_->inline_budget.load(std::memory_order_relaxed);
    }

    /// Sets it. Zero: always post. 128 unless set.
    void inline_budget(unsigned n) noexcept {
        core_->inline_budget.store(n, std::memory_order_relaxed);
    }

private:
    template <class Executor>
    friend class basic_registration;

    void shutdown() override { core_->shutdown(); }

    void notify_fork(boost::asio::execution_context::fork_event event) override {
        if (event == boost::asio::execution_context::fork_child)
            core_->forked();
    }

    static std::string text(interest i) {
        std::ostringstream os;
        os << i;
        return os.str();
    }

    detail::service_core_ptr core_;
};

/// The registration service of an execution context, made if it is not there yet.
inline registration_service& use_registration_service(boost::asio::execution_context& context) {
    return boost::asio::use_service<registration_service>(context);
}

} // namespace moor

#endif // MOOR_REGISTRATION_SERVICE_HPP
