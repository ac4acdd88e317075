// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for ALSA, with ALSA's null and file plugins, and with a sound card of the tests' own:
// a plugin whose descriptor, events and positions the test decides.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/quiet.hpp"

#include <moor/adapt/alsa.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <alsa/asoundlib.h>
#include <alsa/control_external.h>
#include <alsa/pcm_external.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(alsa)

namespace {

namespace asio = boost::asio;
namespace adapt = moor::adapt;
namespace errc = boost::system::errc;
using adapt::alsa_pcm;
using adapt::alsa_ptr;
using test::called_with;
using test::error_code;
using samples = std::vector<std::int16_t>;
using namespace std::chrono_literals;

const error_code aborted = asio::error::operation_aborted;

void called_well(long result) {
    if (result < 0)
        throw std::runtime_error(snd_strerror(static_cast<int>(result)));
}

samples numbers(std::size_t n, int first = 0) {
    samples v(n);
    for (std::size_t i = 0; i != n; ++i)
        v[i] = static_cast<std::int16_t>(first + static_cast<int>(i));
    return v;
}

/// A sound card with a buffer of 256 frames and periods of 64, one channel of 16 bits. The samples
/// that are played go to `heard`, and the samples to record come from `spoken`. The card's
/// descriptor is readable when there is news, for playing, too, and is consumed by the plugin's
/// poll_revents.
class card {
public:
    static constexpr std::size_t buffer = 256;
    static constexpr std::size_t period = 64;

    explicit card(snd_pcm_stream_t stream = SND_PCM_STREAM_PLAYBACK,
                  unsigned start_threshold = buffer)
        : news_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        static const snd_pcm_ioplug_callback_t functions = callbacks();
        io_.version = SND_PCM_IOPLUG_VERSION;
        io_.name = "the tests' card";
        io_.flags = SND_PCM_IOPLUG_FLAG_BOUNDARY_WA;
        io_.poll_fd = news_;
        io_.poll_events = POLLIN;
        io_.callback = &functions;
        io_.private_data = this;
        called_well(snd_pcm_ioplug_create(&io_, "card", stream, SND_PCM_NONBLOCK));
        constrain(SND_PCM_IOPLUG_HW_ACCESS, {SND_PCM_ACCESS_RW_INTERLEAVED});
        constrain(SND_PCM_IOPLUG_HW_FORMAT, {SND_PCM_FORMAT_S16});
        constrain(SND_PCM_IOPLUG_HW_CHANNELS, {1});
        constrain(SND_PCM_IOPLUG_HW_RATE, {48000});
        constrain(SND_PCM_IOPLUG_HW_PERIOD_BYTES, {2 * period});
        constrain(SND_PCM_IOPLUG_HW_BUFFER_BYTES, {2 * buffer});
        snd_pcm_hw_params_t* hw = nullptr;
        snd_pcm_hw_params_alloca(&hw);
        called_well(snd_pcm_hw_params_any(pcm(), hw));
        called_well(snd_pcm_hw_params(pcm(), hw));
        snd_pcm_sw_params_t* sw = nullptr;
        snd_pcm_sw_params_alloca(&sw);
        called_well(snd_pcm_sw_params_current(pcm(), sw));
        called_well(snd_pcm_sw_params_set_start_threshold(pcm(), sw, start_threshold));
        called_well(snd_pcm_sw_params_set_avail_min(pcm(), sw, period));
        called_well(snd_pcm_sw_params(pcm(), sw));
    }
    card(const card&) = delete;
    card& operator=(const card&) = delete;
    ~card() {
        if (!is_closed)
            snd_pcm_close(pcm());
    }

    snd_pcm_t* pcm() const { return io_.pcm; }
    alsa_ptr<snd_pcm_t> owned() const { return alsa_ptr<snd_pcm_t>(pcm()); }

    /// Time passes: so many frames are played or recorded.
    void run(std::size_t frames) {
        position_ += frames;
        notify();
    }
    /// News, without time.
    void notify() {
        const std::uint64_t one = 1;
        called_well(::write(news_, &one, sizeof one)); // no check: it may be another thread
    }
    void fail(int error) {
        error_ = error;
        notify();
    }
    /// No news any more.
    void calm() {
        std::uint64_t n = 0;
        called_well(::read(news_, &n, sizeof n));
    }

    samples heard;
    samples spoken;
    bool is_closed = false;
    bool consumes = true;   ///< otherwise the descriptor stays readable
    bool translates = true; ///< otherwise poll_revents says nothing
    bool has_descriptors = true;
    int poll_error = 0;
    int interruptions = 0; ///< so many transfers fail with EINTR
    long translations = 0;
    long stops = 0;
    std::vector<int> more; ///< further descriptors of the list, which are never ready

private:
    static card& of(snd_pcm_ioplug_t* io) { return *static_cast<card*>(io->private_data); }

    void constrain(int what, std::vector<unsigned> values) {
        called_well(snd_pcm_ioplug_set_param_list(&io_, what, static_cast<unsigned>(values.size()),
                                                  values.data()));
    }

    snd_pcm_uframes_t available() { return snd_pcm_ioplug_avail(&io_, position_, io_.appl_ptr); }

    static snd_pcm_ioplug_callback_t callbacks() {
        snd_pcm_ioplug_callback_t f{};
        f.start = [](snd_pcm_ioplug_t*) { return 0; };
        f.stop = [](snd_pcm_ioplug_t* io) {
            ++of(io).stops;
            return 0;
        };
        f.pointer = [](snd_pcm_ioplug_t* io) -> snd_pcm_sframes_t {
            card& c = of(io);
            if (c.error_ != 0)
                return std::exchange(c.error_, 0);
            return static_cast<snd_pcm_sframes_t>(c.position_);
        };
        f.transfer = [](snd_pcm_ioplug_t* io, const snd_pcm_channel_area_t* areas,
                        snd_pcm_uframes_t offset, snd_pcm_uframes_t size) -> snd_pcm_sframes_t {
            card& c = of(io);
            if (c.interruptions != 0 && c.interruptions-- != 0)
                return -EINTR;
            auto* at = static_cast<std::int16_t*>(areas->addr) + areas->first / 16 + offset;
            if (io->stream == SND_PCM_STREAM_PLAYBACK) {
                c.heard.insert(c.heard.end(), at, at + size);
            } else {
                const auto n = static_cast<std::ptrdiff_t>(size);
                std::copy_n(c.spoken.begin(), n, at);
                c.spoken.erase(c.spoken.begin(), c.spoken.begin() + n);
            }
            return static_cast<snd_pcm_sframes_t>(size);
        };
        f.close = [](snd_pcm_ioplug_t* io) {
            of(io).is_closed = true;
            return 0;
        };
        f.prepare = [](snd_pcm_ioplug_t* io) {
            of(io).position_ = 0;
            return 0;
        };
        f.poll_descriptors_count = [](snd_pcm_ioplug_t* io) {
            const card& c = of(io);
            return c.has_descriptors ? 1 + static_cast<int>(c.more.size()) : 0;
        };
        f.poll_descriptors = [](snd_pcm_ioplug_t* io, pollfd* fds, unsigned n) {
            const card& c = of(io);
            if (c.poll_error != 0)
                return c.poll_error;
            for (unsigned i = 0; i != n; ++i)
                fds[i] = {i == 0 ? c.news_.get() : c.more[i - 1], POLLIN, 0};
            return static_cast<int>(n);
        };
        f.poll_revents = [](snd_pcm_ioplug_t* io, pollfd* fds, unsigned count,
                            unsigned short* events) {
            card& c = of(io);
            ++c.translations;
            if (count != 1 + c.more.size() || fds[0].fd != c.news_)
                return -EINVAL; // as other plugins with several descriptors
            *events = 0;
            if (!(fds[0].revents & POLLIN))
                return 0;
            if (c.consumes) {
                std::uint64_t n = 0;
                called_well(::read(c.news_, &n, sizeof n));
            }
            if (c.error_ != 0)
                *events = POLLERR;
            else if (c.translates && c.available() >= period)
                *events = io->stream == SND_PCM_STREAM_PLAYBACK ? POLLOUT : POLLIN;
            return 0;
        };
        return f;
    }

    snd_pcm_ioplug_t io_{};
    test::unique_fd news_;
    std::size_t position_ = 0;
    int error_ = 0;
};

using frames = called_with<std::size_t>;
using events = called_with<unsigned short>;

struct loop : test::context_fixture {};

/// The list stays ready, and means nothing: the longest pauses, 16 ms each, are between the waits.
void check_pauses(asio::io_context& io, const card& c) {
    const long before = c.translations;
    const auto begin = std::chrono::steady_clock::now();
    test::called timer;
    asio::steady_timer time(io, 40ms);
    time.async_wait(timer.handler());
    test::run_until(io, [&] { return bool(timer); });
    BOOST_TEST(c.translations - before <= (std::chrono::steady_clock::now() - begin) / 16ms + 2);
}

} // namespace

BOOST_FIXTURE_TEST_CASE(all_frames_are_played, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(1000);
    frames written;
    pcm.async_write(tone.data(), tone.size(), written.handler());
    for (int i = 0; i != 12; ++i) {
        test::run_ready(io);
        BOOST_TEST(!written);
        c.run(card::period);
    }
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.ec == error_code());
    BOOST_TEST(written.value == tone.size());
    BOOST_TEST(c.heard == tone, boost::test_tools::per_element());
}

BOOST_FIXTURE_TEST_CASE(frames_are_recorded, loop) {
    card c(SND_PCM_STREAM_CAPTURE, 1);
    alsa_pcm pcm(io, c.pcm());
    const samples voice = numbers(200);
    c.spoken = voice;
    samples got(200);
    frames read;
    pcm.async_read(got.data(), got.size(), read.handler());
    for (int i = 0; i != 4; ++i) {
        test::run_ready(io);
        BOOST_TEST(!read);
        c.run(50);
    }
    test::run_until(io, [&] { return bool(read); });
    BOOST_TEST(read.ec == error_code());
    BOOST_TEST(read.value == 200u);
    BOOST_TEST(got == voice, boost::test_tools::per_element());
}

// The list of a PCM that plays waits with POLLIN: whoever takes the list's bits waits for POLLOUT
// for ever.
BOOST_FIXTURE_TEST_CASE(the_events_are_those_of_the_translation, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    events e;
    pcm.async_wait(e.handler());
    test::run_ready(io);
    BOOST_TEST(!e);
    c.notify();
    test::run_until(io, [&] { return bool(e); });
    BOOST_TEST(e.ec == error_code());
    BOOST_TEST(e.value == POLLOUT);
    BOOST_TEST(c.translations == 1);
}

BOOST_FIXTURE_TEST_CASE(an_event_that_means_nothing_is_waited_out, loop) {
    card c;
    c.translates = false;
    alsa_pcm pcm(io, c.pcm());
    events e;
    pcm.async_wait(e.handler());
    for (int i = 1; i != 5; ++i) {
        c.notify();
        test::run_until(io, [&] { return c.translations == i; });
        test::check_is_quiet(io);
        BOOST_TEST(!e);
        BOOST_TEST(c.translations == i);
    }
    c.translates = true;
    c.notify();
    test::run_until(io, [&] { return bool(e); });
    BOOST_TEST(e.value == POLLOUT);
}

// A loop that spins would translate thousands of times.
BOOST_FIXTURE_TEST_CASE(an_event_that_stays_and_means_nothing_is_not_spun_on, loop) {
    card c;
    c.translates = c.consumes = false;
    c.notify();
    alsa_pcm pcm(io, c.pcm());
    events e;
    pcm.async_wait(e.handler());
    test::run_until(io, [&] { return c.translations == 5; });
    check_pauses(io, c);
    pcm.cancel(); // in a pause
    events next;
    pcm.async_wait(next.handler());
    test::run_until(io, [&] { return bool(e); });
    BOOST_TEST(e.ec == aborted);
    BOOST_TEST(!next);
    c.translates = true;
    test::run_until(io, [&] { return bool(next); });
    BOOST_TEST(next.value == POLLOUT);
}

BOOST_FIXTURE_TEST_CASE(an_event_that_stays_without_room_is_not_spun_on, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(300);
    frames written;
    c.consumes = false;
    c.notify();
    pcm.async_write(tone.data(), tone.size(), written.handler());
    test::run_until(io, [&] { return c.translations == 5; });
    check_pauses(io, c);
    BOOST_TEST(!written);
    c.run(card::period);
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.value == 300u);
}

// Also if the pause of the cancelled operation is over, and nothing has happened in it.
BOOST_FIXTURE_TEST_CASE(an_operation_begins_whatever_an_earlier_one_waits_for, loop) {
    for (int turns = 0; turns != 14; ++turns) {
        card c;
        alsa_pcm pcm(io, c.pcm());
        const samples tone = numbers(10);
        frames written;
        pcm.async_write(tone.data(), tone.size(), written.handler());
        test::run_until(io, [&] { return bool(written); });
        c.translates = c.consumes = false;
        c.notify();
        events e;
        pcm.async_wait(e.handler());
        io.restart();
        for (int i = 0; i != turns; ++i)
            io.run_one();
        c.calm();
        pcm.cancel();
        test::called drained;
        pcm.async_drain(drained.handler());
        test::run_ready(io);
        BOOST_TEST(e.ec == aborted);
        BOOST_TEST(!drained);
        BOOST_TEST(snd_pcm_state(c.pcm()) == SND_PCM_STATE_DRAINING);
        c.consumes = true;
        c.run(10);
        test::run_all(io);
        BOOST_TEST(drained.times == 1);
        BOOST_TEST(drained.ec == error_code());
    }
}

BOOST_FIXTURE_TEST_CASE(an_interrupted_call_is_repeated, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(300);
    c.interruptions = 2;
    frames written;
    pcm.async_write(tone.data(), tone.size(), written.handler());
    test::run_ready(io);
    BOOST_TEST(!written);
    c.interruptions = 1;
    c.run(card::period);
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.ec == error_code());
    BOOST_TEST(c.interruptions == 0);
    BOOST_TEST(c.heard == tone, boost::test_tools::per_element());
}

BOOST_FIXTURE_TEST_CASE(the_list_may_change_from_wait_to_wait, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    test::unique_fd other(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    for (int i = 0; i != 4; ++i) {
        if (i % 2 == 0)
            c.more = {other};
        else
            c.more = {};
        events e;
        pcm.async_wait(e.handler());
        test::run_ready(io);
        BOOST_TEST(!e);
        c.notify();
        test::run_until(io, [&] { return bool(e); });
        BOOST_TEST(e.value == POLLOUT);
    }
}

BOOST_FIXTURE_TEST_CASE(a_drain_ends_when_all_was_played, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(200);
    frames written;
    pcm.async_write(tone.data(), tone.size(), written.handler());
    test::run_until(io, [&] { return bool(written); });
    test::called drained;
    pcm.async_drain(drained.handler());
    for (int i = 0; i != 3; ++i) {
        test::run_ready(io);
        BOOST_TEST(!drained);
        BOOST_TEST(snd_pcm_state(c.pcm()) == SND_PCM_STATE_DRAINING);
        c.run(card::period);
    }
    test::run_ready(io);
    BOOST_TEST(!drained); // 192 frames
    c.run(8);
    test::run_until(io, [&] { return bool(drained); });
    BOOST_TEST(drained.ec == error_code());
    BOOST_TEST(snd_pcm_state(c.pcm()) == SND_PCM_STATE_SETUP);
    BOOST_TEST(c.heard == tone, boost::test_tools::per_element());
}

BOOST_FIXTURE_TEST_CASE(a_pcm_that_was_too_late_is_told_and_recovered_by_the_caller, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(400);
    frames written;
    pcm.async_write(tone.data(), tone.size(), written.handler());
    test::run_ready(io);
    BOOST_TEST(!written);
    c.fail(-EPIPE);
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.ec == errc::broken_pipe);
    BOOST_TEST(written.ec == adapt::alsa_error_code(-EPIPE));
    BOOST_TEST(written.value == card::buffer);

    frames late;
    pcm.async_write(tone.data(), tone.size(), late.handler());
    test::run_until(io, [&] { return bool(late); });
    BOOST_TEST(late.ec == errc::broken_pipe);
    BOOST_TEST(late.value == 0u);

    BOOST_REQUIRE_EQUAL(snd_pcm_recover(pcm.native_handle(), -EPIPE, 1), 0);
    c.heard.clear();
    frames again;
    pcm.async_write(tone.data(), 200, again.handler());
    test::run_until(io, [&] { return bool(again); });
    BOOST_TEST(again.ec == error_code());
    BOOST_TEST(c.heard == numbers(200), boost::test_tools::per_element());
}

BOOST_FIXTURE_TEST_CASE(a_device_that_goes_is_an_error, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    events e;
    pcm.async_wait(e.handler());
    test::run_ready(io);
    c.fail(-ENODEV);
    test::run_until(io, [&] { return bool(e); });
    BOOST_TEST(e.ec == error_code());
    BOOST_TEST(e.value == POLLERR);

    c.poll_error = -ENODEV;
    events none;
    pcm.async_wait(none.handler());
    test::run_until(io, [&] { return bool(none); });
    BOOST_TEST(none.ec == errc::no_such_device);
}

BOOST_FIXTURE_TEST_CASE(bad_input_is_an_error, loop) {
    BOOST_CHECK_THROW(alsa_pcm(io, nullptr), boost::system::system_error);
    card c;
    alsa_pcm pcm(io, c.pcm());
    events first;
    events second;
    pcm.async_wait(first.handler());
    pcm.async_wait(second.handler());
    BOOST_TEST(!second); // never from within
    test::run_until(io, [&] { return bool(second); });
    BOOST_TEST(second.ec == asio::error::already_started);
    c.notify();
    test::run_until(io, [&] { return bool(first); });
    BOOST_TEST(first.value == POLLOUT);

    c.has_descriptors = false;
    events none;
    pcm.async_wait(none.handler());
    test::run_until(io, [&] { return bool(none); });
    BOOST_TEST(none.ec == asio::error::operation_not_supported);
    c.has_descriptors = true;

    pcm.close();
    BOOST_TEST(!c.is_closed); // borrowed
    frames late;
    pcm.async_write("", 0, late.handler());
    test::run_until(io, [&] { return bool(late); });
    BOOST_TEST(late.ec == asio::error::bad_descriptor);
}

// ALSA ends the program if the list of no descriptors is the null pointer.
BOOST_FIXTURE_TEST_CASE(a_handle_without_descriptors_is_an_error_at_once, loop) {
    card c;
    c.has_descriptors = false;
    alsa_pcm pcm(io, c.pcm());
    events none;
    pcm.async_wait(none.handler());
    test::run_until(io, [&] { return bool(none); });
    BOOST_TEST(none.ec == asio::error::operation_not_supported);
}

BOOST_FIXTURE_TEST_CASE(an_operation_without_memory_is_over, loop,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    card c;
    const samples tone = numbers(300);
    int failed = 0;
    for (long n = 0; n != 12; ++n) {
        alsa_pcm pcm(io, c.pcm());
        asio::cancellation_signal signal;
        frames written;
        bool is_thrown = false;
        {
            test::out_of_memory none(n);
            try {
                pcm.async_write(tone.data(), tone.size(),
                                asio::bind_cancellation_slot(signal.slot(), written.handler()));
            } catch (const std::bad_alloc&) {
                is_thrown = true;
            }
            test::run_ready(io);
        }
        failed += is_thrown || written.ec == asio::error::no_memory;
        pcm.cancel();
        BOOST_REQUIRE_GE(snd_pcm_drop(c.pcm()), 0);
        BOOST_REQUIRE_GE(snd_pcm_prepare(c.pcm()), 0);
        events next; // nothing stays behind
        pcm.async_wait(next.handler());
        c.notify();
        test::run_until(io, [&] { return bool(next); });
        BOOST_TEST(next.ec == error_code());
        BOOST_TEST(written.times == !is_thrown);
    }
    BOOST_TEST(failed > 1);
}

BOOST_FIXTURE_TEST_CASE(a_pcm_without_parameters_is_an_error, loop) {
    snd_pcm_t* null = nullptr;
    BOOST_REQUIRE_EQUAL(snd_pcm_open(&null, "null", SND_PCM_STREAM_PLAYBACK, 0), 0);
    alsa_pcm pcm(io, alsa_ptr<snd_pcm_t>(null));
    frames written;
    pcm.async_write("12", 1, written.handler());
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.ec.failed());
    BOOST_TEST(written.value == 0u);
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_operation_says_how_many_frames_there_were, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(300);
    asio::cancellation_signal signal;
    frames written;
    pcm.async_write(tone.data(), tone.size(),
                    asio::bind_cancellation_slot(signal.slot(), written.handler()));
    test::run_ready(io);
    signal.emit(asio::cancellation_type::total); // frames were written: not possible any more
    test::run_ready(io);
    BOOST_TEST(!written);
    signal.emit(asio::cancellation_type::partial);
    BOOST_TEST(!written);
    frames next; // at once
    pcm.async_write(&tone[256], 44, next.handler());
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.ec == aborted);
    BOOST_TEST(written.value == 256u);
    test::run_ready(io);
    BOOST_TEST(!next);
    c.run(card::period);
    test::run_until(io, [&] { return bool(next); });
    BOOST_TEST(next.ec == error_code());
    BOOST_TEST(c.heard == tone, boost::test_tools::per_element());

    frames whole; // none is written: a total cancellation ends it
    c.run(200);
    test::run_ready(io);
    pcm.async_write(tone.data(), 212, whole.handler());
    test::run_until(io, [&] { return bool(whole); });
    events wait;
    pcm.async_wait(asio::bind_cancellation_slot(signal.slot(), wait.handler()));
    signal.emit(asio::cancellation_type::total);
    pcm.cancel(); // for nothing
    test::run_all(io);
    BOOST_TEST(wait.ec == aborted);
    BOOST_TEST(wait.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_deadline_is_the_callers_timer, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(300);
    frames written;
    asio::steady_timer limit(io, 5ms);
    pcm.async_write(tone.data(), tone.size(), written.handler());
    limit.async_wait([&](error_code) { pcm.cancel(); });
    test::run_until(io, [&] { return bool(written); });
    BOOST_TEST(written.ec == aborted);
    BOOST_TEST(written.value == card::buffer);
    test::run_all(io); // nothing is waited for
}

BOOST_FIXTURE_TEST_CASE(an_idle_pcm_costs_nothing, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(100);
    frames written;
    events e;
    pcm.async_wait(e.handler());
    c.notify();
    test::run_until(io, [&] { return bool(e); });
    pcm.async_write(tone.data(), tone.size(), written.handler());
    test::run_all(io); // returns
    BOOST_TEST(written.value == 100u);
    c.run(64); // news that nobody waits for
    test::check_costs_nothing(io);
    events wait; // nothing happens while an operation waits
    c.translates = false;
    pcm.async_wait(wait.handler());
    test::run_until(io, [&] { return c.translations == 2; });
    test::run_ready(io);
    test::check_costs_nothing(io);
    BOOST_TEST(c.translations == 2);
    pcm.close();
    test::run_all(io);
    BOOST_TEST(wait.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE(ten_thousand_operations_in_a_row, loop) {
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(card::period);
    int done = 0;
    std::function<void()> next = [&] {
        pcm.async_write(tone.data(), tone.size(), [&](error_code ec, std::size_t n) {
            BOOST_REQUIRE(!ec);
            BOOST_REQUIRE_EQUAL(n, tone.size());
            if (done >= 3)
                c.run(card::period);
            if (++done != 10'000)
                next();
        });
    };
    next();
    test::run_until(io, [&] { return done == 10'000; });
    BOOST_REQUIRE_EQUAL(c.heard.size(), 10'000 * card::period);
    for (std::size_t i = 0; i != c.heard.size(); ++i)
        if (c.heard[i] != tone[i % card::period])
            BOOST_FAIL("frame " << i);
}

BOOST_FIXTURE_TEST_CASE(two_hundred_cards_at_once, loop) {
    std::deque<card> cards(200);
    std::deque<alsa_pcm> pcms;
    const samples tone = numbers(1000);
    std::size_t done = 0;
    for (card& c : cards) {
        pcms.emplace_back(io, c.pcm());
        pcms.back().async_write(tone.data(), tone.size(), [&](error_code ec, std::size_t n) {
            BOOST_CHECK(!ec);
            BOOST_CHECK_EQUAL(n, tone.size());
            ++done;
        });
    }
    for (int i = 0; i != 12; ++i) {
        test::run_ready(io);
        for (card& c : cards)
            c.run(card::period);
    }
    test::run_until(io, [&] { return done == cards.size(); });
    for (card& c : cards)
        BOOST_CHECK(c.heard == tone);
}

BOOST_FIXTURE_TEST_CASE(an_owned_handle_is_closed_and_a_released_one_is_not, loop) {
    card c;
    {
        alsa_pcm pcm(io, c.owned());
        BOOST_TEST(pcm.native_handle() == c.pcm());
        events e;
        pcm.async_wait(e.handler());
        test::run_ready(io);
        BOOST_TEST(pcm.release() == c.pcm());
        BOOST_TEST(!pcm.native_handle());
        test::run_all(io);
        BOOST_TEST(e.ec == aborted);
    }
    BOOST_TEST(!c.is_closed);
    { alsa_pcm pcm(io.get_executor(), c.owned()); }
    BOOST_TEST(c.is_closed);
}

BOOST_FIXTURE_TEST_CASE(an_object_may_move_with_its_operation, loop) {
    card a;
    card b;
    alsa_pcm pcm(io, a.owned());
    frames written;
    const samples tone = numbers(300);
    pcm.async_write(tone.data(), tone.size(), written.handler());
    alsa_pcm moved(std::move(pcm));
    test::run_ready(io);
    events e;
    alsa_pcm last(io, b.owned());
    last.async_wait(e.handler());
    last = std::move(moved);
    BOOST_TEST(b.is_closed);
    a.run(card::period);
    test::run_until(io, [&] { return written && e; });
    BOOST_TEST(written.ec == error_code());
    BOOST_TEST(e.ec == aborted);
}

BOOST_AUTO_TEST_CASE(an_object_may_be_destroyed_after_each_turn_of_the_loop) {
    const long descriptors = test::open_descriptors();
    const samples tone = numbers(700);
    bool is_over = false;
    for (int turns = 0; !is_over; ++turns) {
        BOOST_REQUIRE_LT(turns, 1000);
        asio::io_context io;
        card c;
        std::optional<alsa_pcm> pcm(std::in_place, io, c.owned());
        frames written;
        test::called drained;
        pcm->async_write(tone.data(), tone.size(), [&](error_code ec, std::size_t n) {
            written.handler()(ec, n);
            if (pcm)
                pcm->async_drain(drained.handler());
        });
        for (int i = 0; i != turns && !drained; ++i) {
            c.run(i % 3 == 0 ? 16 : 0);
            io.poll_one();
            if (io.stopped())
                io.restart();
        }
        is_over = bool(drained);
        pcm.reset();
        BOOST_TEST(c.is_closed);
        test::run_all(io);
        BOOST_TEST(written.times == 1);
        BOOST_TEST(drained.times <= 1);
        BOOST_TEST((written.ec == error_code() || written.ec == aborted));
    }
    BOOST_TEST(test::open_descriptors() == descriptors);
}

BOOST_FIXTURE_TEST_CASE(an_object_may_be_destroyed_in_its_own_handler, loop) {
    card c;
    auto pcm = std::make_shared<alsa_pcm>(io, c.owned());
    bool is_called = false;
    pcm->async_wait([&, pcm](error_code, unsigned short) mutable {
        pcm.reset();
        BOOST_TEST(c.is_closed);
        is_called = true;
    });
    std::weak_ptr<alsa_pcm> alive = pcm;
    pcm.reset();
    test::run_ready(io);
    c.notify();
    test::run_until(io, [&] { return is_called; });
    BOOST_TEST(alive.expired());
}

BOOST_AUTO_TEST_CASE(an_object_may_outlive_its_context) {
    card c;
    card d;
    auto io = std::make_unique<asio::io_context>();
    auto guard = std::make_shared<int>(0);
    auto own = std::make_shared<alsa_pcm>(*io, d.owned());
    alsa_pcm pcm(*io, c.owned());
    events none;
    pcm.async_wait([guard, h = none.handler()](error_code ec, unsigned short e) { h(ec, e); });
    own->async_wait([guard, own](error_code, unsigned short) {}); // owns its object
    own.reset();
    test::run_ready(*io);
    BOOST_TEST(!d.is_closed);
    io.reset();
    BOOST_TEST(guard.use_count() == 1);
    BOOST_TEST(!none);
    BOOST_TEST(d.is_closed);
    BOOST_TEST(!c.is_closed);
    pcm.close();
    BOOST_TEST(c.is_closed);
}

BOOST_AUTO_TEST_CASE(a_strand_of_a_pool_plays_with_futures) {
    asio::thread_pool pool(2);
    card c;
    const samples tone = numbers(2000);
    auto strand = asio::make_strand(pool);
    adapt::basic_alsa_pcm<asio::strand<asio::thread_pool::executor_type>> pcm(strand, c.pcm());
    std::atomic<bool> is_over{false};
    std::thread clock([&] {
        while (!is_over) {
            std::promise<void> ticked;
            asio::post(strand, [&] {
                if (snd_pcm_state(c.pcm()) == SND_PCM_STATE_RUNNING)
                    c.run(16);
                ticked.set_value();
            });
            ticked.get_future().get();
        }
    });
    std::promise<std::future<std::size_t>> started;
    asio::post(strand, [&] {
        started.set_value(pcm.async_write(tone.data(), tone.size(), asio::use_future));
    });
    std::future<std::size_t> written = started.get_future().get();
    BOOST_TEST((written.wait_for(test::cap) == std::future_status::ready));
    is_over = true;
    clock.join();
    asio::post(strand, [&] { pcm.close(); });
    pool.join();
    BOOST_TEST(written.get() == tone.size());
    BOOST_TEST(c.heard == tone, boost::test_tools::per_element());
}

// ALSA is called on the I/O executor, wherever the handler belongs.
BOOST_FIXTURE_TEST_CASE(a_handler_of_another_context_is_invoked_there, loop) {
    asio::io_context other;
    card c;
    alsa_pcm pcm(io, c.pcm());
    const samples tone = numbers(300);
    frames written;
    pcm.async_write(tone.data(), tone.size(),
                    asio::bind_executor(other.get_executor(), written.handler()));
    test::run_ready(io);
    c.run(card::period);
    test::run_until(io, [&] { return c.heard.size() == tone.size(); });
    test::run_ready(io);
    BOOST_TEST(!written);
    test::run_until(other, [&] { return bool(written); });
    BOOST_TEST(written.value == tone.size());
}

// /dev/null and /dev/full, which are ready always.
BOOST_FIXTURE_TEST_CASE(the_null_plugin_is_always_ready, loop) {
    for (const snd_pcm_stream_t stream : {SND_PCM_STREAM_PLAYBACK, SND_PCM_STREAM_CAPTURE}) {
        snd_pcm_t* null = nullptr;
        BOOST_REQUIRE_EQUAL(snd_pcm_open(&null, "null", stream, 0), 0);
        alsa_pcm pcm(io, alsa_ptr<snd_pcm_t>(null));
        BOOST_REQUIRE_EQUAL(snd_pcm_set_params(null, SND_PCM_FORMAT_S16,
                                               SND_PCM_ACCESS_RW_INTERLEAVED, 2, 48000, 1, 100000),
                            0);
        events e;
        pcm.async_wait(e.handler());
        test::run_until(io, [&] { return bool(e); });
        BOOST_TEST(e.value == (stream == SND_PCM_STREAM_PLAYBACK ? POLLOUT : POLLIN));
        samples second(96000);
        frames moved;
        if (stream == SND_PCM_STREAM_PLAYBACK)
            pcm.async_write(second.data(), 48000, moved.handler());
        else
            pcm.async_read(second.data(), 48000, moved.handler());
        test::run_until(io, [&] { return bool(moved); });
        BOOST_TEST(moved.ec == error_code());
        BOOST_TEST(moved.value == 48000u);
        for (int i = 0; i != 2; ++i) { // a PCM that has stopped is drained
            test::called drained;
            pcm.async_drain(drained.handler());
            test::run_until(io, [&] { return bool(drained); });
            BOOST_TEST(drained.ec == error_code());
        }
    }
}

BOOST_FIXTURE_TEST_CASE(the_file_plugin_writes_what_was_played, loop) {
    std::string name = "/tmp/moor-alsa.XXXXXX";
    test::unique_fd file(::mkstemp(name.data()));
    const samples tone = numbers(1000);
    {
        snd_pcm_t* h = nullptr;
        BOOST_REQUIRE_EQUAL(
            snd_pcm_open(&h, ("file:" + name + ",raw").c_str(), SND_PCM_STREAM_PLAYBACK, 0), 0);
        alsa_pcm pcm(io, alsa_ptr<snd_pcm_t>(h));
        BOOST_REQUIRE_EQUAL(snd_pcm_set_params(h, SND_PCM_FORMAT_S16, SND_PCM_ACCESS_RW_INTERLEAVED,
                                               1, 48000, 0, 100000),
                            0);
        frames written;
        test::called drained;
        pcm.async_write(tone.data(), tone.size(), written.handler());
        test::run_until(io, [&] { return bool(written); });
        pcm.async_drain(drained.handler());
        test::run_until(io, [&] { return bool(drained); });
    }
    samples got(2000);
    const ssize_t n = ::pread(file, got.data(), 4000, 0);
    got.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)) / 2);
    BOOST_TEST(got == tone, boost::test_tools::per_element());
    ::unlink(name.c_str());
}

namespace {

/// A control whose elements change when the test says so.
struct control {
    control() : news(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        static const snd_ctl_ext_callback_t functions = [] {
            snd_ctl_ext_callback_t f{};
            f.elem_count = [](snd_ctl_ext_t*) { return 0; };
            f.subscribe_events = [](snd_ctl_ext_t*, int) {};
            f.read_event = [](snd_ctl_ext_t* x, snd_ctl_elem_id_t* id, unsigned* mask) {
                std::uint64_t n = 0;
                if (::read(x->poll_fd, &n, sizeof n) != sizeof n)
                    return -EAGAIN;
                snd_ctl_elem_id_set_name(id, "Volume");
                *mask = SND_CTL_EVENT_MASK_VALUE;
                return 1;
            };
            return f;
        }();
        ext.version = SND_CTL_EXT_VERSION;
        ext.poll_fd = news;
        ext.callback = &functions;
        called_well(snd_ctl_ext_create(&ext, "control", 0));
    }

    snd_ctl_ext_t ext{};
    test::unique_fd news;
};

/// A handle that is no library's: its functions are the test's own, below.
struct midi_port {
    test::unique_fd news{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    bool is_nonblocking = false;
    bool is_closed = false;

    template <class Handle>
    Handle* as() {
        return reinterpret_cast<Handle*>(this);
    }
    template <class Handle>
    static midi_port& of(Handle* h) {
        return *reinterpret_cast<midi_port*>(h);
    }

    int set_nonblock() {
        is_nonblocking = true;
        return 0;
    }
    int close() {
        is_closed = true;
        return 0;
    }
    int fill(pollfd* fds) const {
        *fds = {news, POLLIN, 0};
        return 1;
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(a_control_tells_its_events, loop) {
    control c;
    adapt::alsa_ctl ctl(io, alsa_ptr<snd_ctl_t>(c.ext.handle));
    BOOST_TEST(c.ext.nonblock == 1);
    BOOST_REQUIRE_GE(snd_ctl_subscribe_events(ctl.native_handle(), 1), 0);
    snd_ctl_event_t* event = nullptr;
    snd_ctl_event_alloca(&event);
    for (int i = 0; i != 3; ++i) {
        events e;
        ctl.async_wait(e.handler());
        test::run_ready(io);
        BOOST_TEST(!e);
        const std::uint64_t one = 1;
        BOOST_REQUIRE_EQUAL(::write(c.news, &one, sizeof one), 8);
        test::run_until(io, [&] { return bool(e); });
        BOOST_TEST(e.value == POLLIN);
        BOOST_REQUIRE_EQUAL(snd_ctl_read(ctl.native_handle(), event), 1);
        BOOST_TEST(snd_ctl_event_elem_get_name(event) == std::string("Volume"));
        BOOST_TEST(snd_ctl_read(ctl.native_handle(), event) == -EAGAIN);
    }
}

BOOST_FIXTURE_TEST_CASE(a_midi_port_and_the_sequencer_are_waited_for_with_their_functions, loop) {
    const auto check = [&](auto* handle, midi_port& port) {
        using handle_type = std::remove_pointer_t<decltype(handle)>;
        adapt::basic_alsa<handle_type> object(io, alsa_ptr<handle_type>(handle));
        BOOST_TEST(port.is_nonblocking);
        events e;
        object.async_wait(e.handler());
        test::run_ready(io);
        BOOST_TEST(!e);
        const std::uint64_t one = 1;
        BOOST_REQUIRE_EQUAL(::write(port.news, &one, sizeof one), 8);
        test::run_until(io, [&] { return bool(e); });
        BOOST_TEST(e.value == POLLIN);
        object.close();
        BOOST_TEST(port.is_closed);
    };
    midi_port raw;
    check(raw.as<snd_rawmidi_t>(), raw);
    midi_port sequencer;
    check(sequencer.as<snd_seq_t>(), sequencer);
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

BOOST_FIXTURE_TEST_CASE(a_coroutine_plays_and_drains, loop) {
    card c;
    alsa_pcm pcm(io, c.owned());
    const samples tone = numbers(500);
    bool is_over = false;
    asio::co_spawn(
        io,
        [&]() -> asio::awaitable<void> {
            const std::size_t n =
                co_await pcm.async_write(tone.data(), tone.size(), asio::use_awaitable);
            BOOST_TEST(n == tone.size());
            co_await pcm.async_drain(asio::use_awaitable);
            is_over = true;
        },
        [](std::exception_ptr p) {
            if (p)
                std::rethrow_exception(p);
        });
    while (!is_over) {
        test::run_ready(io);
        if (!is_over)
            c.run(20);
    }
    BOOST_TEST(c.heard == tone, boost::test_tools::per_element());
}

#endif

BOOST_AUTO_TEST_SUITE_END()

// In place of the library's, since no plugin makes these handles without hardware.
extern "C" {
int snd_rawmidi_nonblock(snd_rawmidi_t* h, int) { return alsa::midi_port::of(h).set_nonblock(); }
int snd_rawmidi_poll_descriptors_count(snd_rawmidi_t*) { return 1; }
int snd_rawmidi_poll_descriptors(snd_rawmidi_t* h, pollfd* fds, unsigned) {
    return alsa::midi_port::of(h).fill(fds);
}
int snd_rawmidi_poll_descriptors_revents(snd_rawmidi_t*, pollfd* fds, unsigned,
                                         unsigned short* events) {
    *events = static_cast<unsigned short>(fds->revents);
    return 0;
}
int snd_rawmidi_close(snd_rawmidi_t* h) { return alsa::midi_port::of(h).close(); }

int snd_seq_nonblock(snd_seq_t* h, int) { return alsa::midi_port::of(h).set_nonblock(); }
int snd_seq_poll_descriptors_count(snd_seq_t*, short) { return 1; }
int snd_seq_poll_descriptors(snd_seq_t* h, pollfd* fds, unsigned, short) {
    return alsa::midi_port::of(h).fill(fds);
}
int snd_seq_poll_descriptors_revents(snd_seq_t*, pollfd* fds, unsigned, unsigned short* events) {
    *events = static_cast<unsigned short>(fds->revents);
    return 0;
}
int snd_seq_close(snd_seq_t* h) { return alsa::midi_port::of(h).close(); }
}
