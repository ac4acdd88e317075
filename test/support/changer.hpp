// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Causes the changes that some files of /proc tell once.

#ifndef MOOR_TEST_SUPPORT_CHANGER_HPP
#define MOOR_TEST_SUPPORT_CHANGER_HPP

#include "support/handles.hpp"

#include <csignal>
#include <string>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace test {

/// A process with mounts and a host name of its own, which changes them when it is told to.
class changer {
public:
    changer() {
        fd_pair p = make_socketpair();
        ::fcntl(p.b, F_SETFL, 0);
        ::fcntl(p.a, F_SETFL, 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            // No other file of the tests stays open because of this process.
            ::dup2(p.b, 0);
            ::close_range(1, ~0u, 0);
            obey(0);
        }
        commands_ = std::move(p.a);
        p.b.close();
        exists_ = tell('?');
    }
    ~changer() {
        commands_.close();
        ::waitpid(pid_, nullptr, 0);
    }
    changer(const changer&) = delete;
    changer& operator=(const changer&) = delete;

    /// Whether this user may have such a process.
    bool exists() const { return exists_; }
    bool change_mounts() { return tell('m'); }
    bool change_host_name() { return tell('h'); }
    std::string file(const std::string& name) const {
        return "/proc/" + std::to_string(pid_) + "/" + name;
    }

private:
    bool tell(char what) {
        char answer = 0;
        return ::send(commands_, &what, 1, MSG_NOSIGNAL) == 1 &&
               ::recv(commands_, &answer, 1, 0) == 1 && answer == 1;
    }

    [[noreturn]] static void obey(int commands) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int own = CLONE_NEWNS | CLONE_NEWUTS;
        bool may = (::unshare(own) == 0 || ::unshare(own | CLONE_NEWUSER) == 0) &&
                   ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
        bool is_mounted = false;
        for (unsigned n = 0;; ++n) {
            char what;
            if (::recv(commands, &what, 1, 0) != 1)
                ::_exit(0);
            char done = may;
            if (what == 'm') {
                done = (is_mounted ? ::umount2("/tmp", MNT_DETACH)
                                   : ::mount("none", "/tmp", "tmpfs", 0, nullptr)) == 0;
                is_mounted = !is_mounted;
            } else if (what == 'h') {
                std::string name = "moor-" + std::to_string(n);
                done = ::sethostname(name.data(), name.size()) == 0;
            }
            (void)!::send(commands, &done, 1, MSG_NOSIGNAL);
        }
    }

    ::pid_t pid_;
    unique_fd commands_;
    bool exists_ = false;
};

} // namespace test

#endif
