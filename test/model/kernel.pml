// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The kernel: files, and one number that stands for one of them. Each inline is one system call, or
// one event of the outside world. The epoll sets are the backend's: wake_sets(), close_file().

byte events[FILES];   // what poll(2) tells of a file
byte number = 0;      // the file that the number stands for
byte named = 1;       // the files that exist, as bits: named so far, or kept open by a duplicate

/// What a file tells, which some files tell once.
inline poll_file(f, asked, found) {
    found = events[f] & ((asked) | pollerr | pollhup);
#if TOLD_ONCE
    events[f] = 0;
#endif
}

/// poll(2) on the number.
inline poll_now(asked, found, result) {
    if
    :: number == no_file -> found = 0; result = bad_descriptor
    :: else -> poll_file(number, asked, found)
    fi
}

/// Something happens to a file, perhaps what was the case before.
inline raise(f, e) {
    events[f] = events[f] | (e);
    wake_sets(f, e);
    note_raised(f, e)
}

/// A call takes all data, or fills the room. The end of file stays.
inline drain(f, want) {
    events[f] = events[f] & ~((want) & pollable & ((events[f] & pollrdhup) != 0 -> writable : pollable))
}

/// The owner closes the number. The file goes on while a duplicate of it is open.
inline close_number(is_duplicated) {
    if
    :: !(is_duplicated) ->
        close_file(number);
        named = named & ~bit(number)
    :: else
    fi;
    number = no_file
}

/// The first file, of which there is a duplicate, gets the number again.
inline name_first_file() {
    close_file(1);
    named = named & ~bit(1);
    number = 0
}

/// Another file gets the number.
inline name_second_file() {
    number = 1;
    named = named | bit(1);
    events[1 % FILES] = 0
}
