// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for ALSA, with ALSA's null and file plugins, and with a sound card of the tests' own:
// a plugin whose descriptor, events and positions the test decides.

#include "support/context.hpp"
#include "support/counts.hpp"
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
        BOOST_REQUIRE_EQUAL(::write(news_, &one, sizeof one), 8);
    }
    void fail(int error) {
        error_ = error;
        notify();
    }

    samples heard;
    samples spoken;
    bool is_closed = false;
    bool consumes = true;   ///< otherwise the descriptor stays readable
    bool translates = true; ///< otherwise poll_revents says nothing
    bool has_descriptors = true;
    int poll_error = 0;
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
                        snd_pcm_uframes_t offset, snd_pcm_uframes_t size) {
            card& c = of(io);
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
        f.poll_revents = [](snd_pcm_ioplug_t* io, pollfd* fds, unsigned, unsigned short* events) {
            card& c = of(io);
            ++c.translations;
            *events = 0;
            if (!(fds[0].revents & POLLIN))
                return 0;
            if (c.consumes) {
                std::uint64_t n = 0;
                BOOST_REQUIRE_EQUAL(::read(c.news_, &n, sizeof n), 8);
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

/// What an operation completed with.
template <class Value>
struct outcome {
    int times = 0;
    error_code ec;
    Value value{};

    explicit operator bool() const { return times != 0; }
    auto handler() {
        return [this](error_code e, Value v) {
            ++times;
            ec = e;
            value = v;
        };
    }
};
using frames = outcome<std::size_t>;
using events = outcome<unsigned short>;

struct loop : test::context_fixture {};

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

BOOST_AUTO_TEST_SUITE_END()
