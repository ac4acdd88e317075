//
// moor/adapt/detail/alsa_functions.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The functions of ALSA that differ from handle to handle. Each returns a negative number on error.
//
//   set_nonblock  sets the non-blocking mode
//   count         the length of the list
//   fill          fills the list, and returns its length
//   translate     turns what poll(2) reported into what has happened
//   close         closes the handle
//

#ifndef MOOR_ADAPT_DETAIL_ALSA_FUNCTIONS_HPP
#define MOOR_ADAPT_DETAIL_ALSA_FUNCTIONS_HPP

#include <alsa/asoundlib.h>
#include <poll.h>

namespace moor {
namespace adapt {

template <class Handle>
struct alsa_functions;

/// The functions of a PCM.
template <>
struct alsa_functions<snd_pcm_t> {
    static int set_nonblock(snd_pcm_t* h) { return snd_pcm_nonblock(h, 1); }
    static int count(snd_pcm_t* h) { return snd_pcm_poll_descriptors_count(h); }
    static int fill(snd_pcm_t* h, ::pollfd* fds, unsigned n) {
        return snd_pcm_poll_descriptors(h, fds, n);
    }
    static int translate(snd_pcm_t* h, ::pollfd* fds, unsigned n, unsigned short* events) {
        return snd_pcm_poll_descriptors_revents(h, fds, n, events);
    }
    static void close(snd_pcm_t* h) { snd_pcm_close(h); }
};

/// The functions of a control.
template <>
struct alsa_functions<snd_ctl_t> {
    static int set_nonblock(snd_ctl_t* h) { return snd_ctl_nonblock(h, 1); }
    static int count(snd_ctl_t* h) { return snd_ctl_poll_descriptors_count(h); }
    static int fill(snd_ctl_t* h, ::pollfd* fds, unsigned n) {
        return snd_ctl_poll_descriptors(h, fds, n);
    }
    static int translate(snd_ctl_t* h, ::pollfd* fds, unsigned n, unsigned short* events) {
        return snd_ctl_poll_descriptors_revents(h, fds, n, events);
    }
    static void close(snd_ctl_t* h) { snd_ctl_close(h); }
};

/// The functions of one direction of a MIDI port.
template <>
struct alsa_functions<snd_rawmidi_t> {
    static int set_nonblock(snd_rawmidi_t* h) { return snd_rawmidi_nonblock(h, 1); }
    static int count(snd_rawmidi_t* h) { return snd_rawmidi_poll_descriptors_count(h); }
    static int fill(snd_rawmidi_t* h, ::pollfd* fds, unsigned n) {
        return snd_rawmidi_poll_descriptors(h, fds, n);
    }
    static int translate(snd_rawmidi_t* h, ::pollfd* fds, unsigned n, unsigned short* events) {
        return snd_rawmidi_poll_descriptors_revents(h, fds, n, events);
    }
    static void close(snd_rawmidi_t* h) { snd_rawmidi_close(h); }
};

/// The functions of the sequencer, which is waited for to read events.
template <>
struct alsa_functions<snd_seq_t> {
    static int set_nonblock(snd_seq_t* h) { return snd_seq_nonblock(h, 1); }
    static int count(snd_seq_t* h) { return snd_seq_poll_descriptors_count(h, POLLIN); }
    static int fill(snd_seq_t* h, ::pollfd* fds, unsigned n) {
        return snd_seq_poll_descriptors(h, fds, n, POLLIN);
    }
    static int translate(snd_seq_t* h, ::pollfd* fds, unsigned n, unsigned short* events) {
        return snd_seq_poll_descriptors_revents(h, fds, n, events);
    }
    static void close(snd_seq_t* h) { snd_seq_close(h); }
};

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_ALSA_FUNCTIONS_HPP
