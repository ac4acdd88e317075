//
// moor/adapt/detail/inotify_model.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The model of a tree: all names, and a watch for each directory. Two sources change the model:
// the events, which wait in the kernel's queue and so may be old, and the reading of directories,
// which shows the present. The model tells each change of its own, and nothing else. So a caller
// who repeats the changes has the same tree.
//
//   nodes       the directories; an entry of another type has no node
//   by_watch_   the node of each watch
//   to_read_    the directories to be watched and read
//   stale_      watches without a node, which are to be removed
//   moving_     the last event was IN_MOVED_FROM; the next event may be its IN_MOVED_TO
//
// Why the model equals the disk after the last event:
//   1. A directory is watched before it is read, both through one descriptor: the watch and the
//      names belong to the same directory. Later changes come as events. If the reading has
//      already reported the change of an event, the event changes nothing in the model, and is
//      dropped.
//   2. The names of a path may lead to another directory: one was moved, and the event is still in
//      the queue. So the event is still to come. Each event that puts a directory somewhere has the
//      directory read again, with all directories below it, and compared. No symbolic link is
//      followed: a directory that was reached through one would lose its watch, and no event would
//      be to come.
//   3. All names that one system call returns are handled before the next event. Otherwise a name
//      could be added after the event that removed it.
//   4. A watch stands for a directory. It belongs to the node that has found the directory last.
//

#ifndef MOOR_ADAPT_DETAIL_INOTIFY_MODEL_HPP
#define MOOR_ADAPT_DETAIL_INOTIFY_MODEL_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/inotify_descriptor.hpp>
#include <moor/adapt/inotify_types.hpp>
#include <moor/error.hpp>

#include <boost/asio/error.hpp>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace moor {
namespace adapt {
namespace detail {

class inotify_model {
    using clock = std::chrono::steady_clock;

public:
    using value_type = inotify_change;
    static constexpr std::chrono::milliseconds default_budget{1};

    /// `also` has the events that are told beside the coming and going of entries. After `budget`,
    /// a turn reads no further directory, or part of one.
    inotify_model(const std::filesystem::path& root, std::uint32_t also,
                  clock::duration budget = default_budget)
        : also_(also & (IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB)), budget_(budget) {
        std::error_code ec;
        root_path_ = std::filesystem::absolute(root, ec);
        if (ec)
            root_path_ = root;
    }

    const std::filesystem::path& root() const noexcept { return root_path_; }
    int native_handle() const noexcept { return inotify_.native_handle(); }
    bool has_more() const noexcept {
        return native_handle() < 0 || !to_read_.empty() || !stale_.empty() || !is_ready_;
    }
    void fail() noexcept { close(); }
    void close() noexcept {
        by_watch_.clear();
        stale_.clear();
        to_read_.clear();
        moving_.reset();
        root_.reset();
        identity_.reset();
        base_.reset();
        changes_.clear();
        inotify_.close();
    }

    error_code turn(std::vector<inotify_change>& changes) {
        failure_.clear();
        if (native_handle() < 0)
            begin();
        read_events();
        read_directories();
        base_.reset();
        changes = std::exchange(changes_, {});
        return failure_;
    }

private:
    struct node;
    struct entry {
        std::shared_ptr<node> directory; // or none
        std::uint64_t seen = 0;          // by which reading of the parent, or an event since then
    };
    using entries = std::map<std::string, entry>;

    struct node : std::enable_shared_from_this<node> {
        node(node* p, std::string n) : parent(p), name(std::move(n)) {}

        node* parent;
        std::string name;
        entries content;
        int watch = -1;
        bool is_gone = false; // no part of the tree any more
        bool is_to_read = false;
        file_descriptor reading;  // while it is being read
        std::uint64_t number = 0; // of the last reading
        error_code refusal;       // why it is not watched
    };

    struct identity {
        ::dev_t device;
        ::ino_t inode;
    };

    // ---- the queue of the kernel ----------------------------------------------------------------

    void begin() {
        if (has_null(root_path_.native()))
            failure_ = boost::asio::error::invalid_argument;
        else if (native_handle() < 0)
            inotify_.open(failure_);
        is_ready_ = false;
        root_ = std::make_shared<node>(nullptr, std::string());
        schedule(*root_);
    }

    /// Events were lost. Watches that the reading does not find again are removed after it.
    void start_over() {
        for (const auto& w : by_watch_)
            stale_.insert(w.first);
        by_watch_.clear();
        to_read_.clear();
        moving_.reset();
        tell(inotify_kind::overflow, std::string(), false);
        begin();
    }

    void read_events() {
        std::vector<inotify_event> events;
        do {
            events.clear();
            if (failure_)
                return;
            failure_ = inotify_.turn(events);
            for (const inotify_event& e : events)
                apply(e);
        } while (moving_ && !events.empty());
        end_move(); // the queue was empty
    }

    void apply(const inotify_event& e) {
        if ((e.mask & IN_Q_OVERFLOW) != 0)
            return start_over();
        node* n = find(e.watch);
        if (moving_ && n && (e.mask & IN_MOVED_TO) != 0 && e.cookie == moving_->cookie)
            return move_to(n->shared_from_this(), e);
        end_move();
        n = find(e.watch);
        if (!n) {
            if ((e.mask & IN_IGNORED) != 0)
                stale_.erase(e.watch);
            return;
        }
        if (n == root_.get() &&
            (e.mask & (IN_MOVE_SELF | IN_DELETE_SELF | IN_UNMOUNT | IN_IGNORED)) != 0)
            failure_ = inotify_error::root_gone;
        else if ((e.mask & IN_UNMOUNT) != 0) // there is another directory below
            schedule(*n);
        else if ((e.mask & IN_IGNORED) != 0)
            forget_watch(*n);
        else if (!e.name.empty())
            apply(*n, e);
    }

    void apply(node& n, const inotify_event& e) {
        const bool is_directory = (e.mask & IN_ISDIR) != 0;
        if ((e.mask & IN_MOVED_FROM) != 0)
            moving_ = move{e.cookie, n.shared_from_this(), e.name};
        else if ((e.mask & IN_DELETE) != 0)
            remove(n, e.name);
        else if ((e.mask & IN_CREATE) != 0)
            see(n, e.name, is_directory);
        else if ((e.mask & IN_MOVED_TO) != 0) // it replaces what was there
            remove(n, e.name), see(n, e.name, is_directory);
        else
            note(n, e);
    }

    /// A change of something that stays.
    void note(node& n, const inotify_event& e) {
        const auto at = n.content.find(e.name);
        if (at == n.content.end())
            return;
        node* const directory = at->second.directory.get();
        if ((e.mask & IN_ATTRIB) != 0 && directory && directory->watch < 0)
            schedule(*directory); // perhaps it can be read now
        const std::uint32_t told = e.mask & also_;
        if (told != 0)
            tell((told & IN_CLOSE_WRITE) != 0 ? inotify_kind::written
                 : (told & IN_MODIFY) != 0    ? inotify_kind::modified
                                              : inotify_kind::attributes,
                 path_of(n, e.name), directory != nullptr);
    }

    // ---- moves ----------------------------------------------------------------------------------

    struct move {
        std::uint32_t cookie;
        std::shared_ptr<node> parent;
        std::string name;
    };

    /// Nothing said where to: it has left the tree.
    void end_move() {
        if (const std::optional<move> m = std::exchange(moving_, std::nullopt)) {
            remove(*m->parent, m->name);
            check(*m->parent, m->name);
        }
    }

    void move_to(const std::shared_ptr<node>& to, const inotify_event& e) {
        node& target = *to;
        const move m = *std::exchange(moving_, std::nullopt);
        const auto at = m.parent->content.find(m.name);
        const bool is_directory = (e.mask & IN_ISDIR) != 0;
        node* const moved = at == m.parent->content.end() ? nullptr : at->second.directory.get();
        if (at == m.parent->content.end() || (moved != nullptr) != is_directory ||
            // The new place is below the old one, which is not so any more.
            (moved && is_within(target, *moved))) {
            remove(*m.parent, m.name);
            if (!target.is_gone) {
                remove_other(target, e.name, is_directory);
                see(target, e.name, is_directory);
            }
        } else {
            const std::string from = path_of(*m.parent, m.name);
            entry taken = std::move(at->second);
            m.parent->content.erase(at);
            erase(target, e.name);
            taken.seen = target.number;
            if (moved) {
                moved->parent = &target;
                moved->name = e.name;
                schedule(*moved);
            }
            target.content.emplace(e.name, std::move(taken));
            changes_.push_back(
                {inotify_kind::moved, path_of(target, e.name), from, is_directory, error_code()});
        }
        if (!m.parent->is_gone)
            check(*m.parent, m.name);
    }

    /// Something may have come in exchange (RENAME_EXCHANGE), which no event tells.
    void check(node& n, const std::string& name) {
        struct ::stat st;
        const file_descriptor fd = open_directory(n, O_PATH);
        if (fd.get() >= 0 && ::fstatat(fd.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0)
            see(n, name, S_ISDIR(st.st_mode));
    }

    static bool is_within(const node& n, const node& ancestor) noexcept {
        const node* p = &n;
        while (p && p != &ancestor)
            p = p->parent;
        return p != nullptr;
    }

    // ---- the tree -------------------------------------------------------------------------------

    node* find(int watch) const {
        const auto at = by_watch_.find(watch);
        return at == by_watch_.end() ? nullptr : at->second;
    }

    /// The entry is there.
    void see(node& n, const std::string& name, bool is_directory) {
        remove_other(n, name, is_directory);
        const auto [at, is_new] = n.content.try_emplace(name);
        at->second.seen = n.number;
        if (is_new) {
            if (is_directory)
                at->second.directory = std::make_shared<node>(&n, name);
            tell(is_ready_ ? inotify_kind::created : inotify_kind::found, path_of(n, name),
                 is_directory);
        }
        if (is_directory)
            schedule(*at->second.directory);
    }

    /// Removes an entry of the other type.
    void remove_other(node& n, const std::string& name, bool is_directory) {
        const auto at = n.content.find(name);
        if (at != n.content.end() && (at->second.directory != nullptr) != is_directory)
            remove(n, name);
    }

    void remove(node& n, const std::string& name) {
        const auto at = n.content.find(name);
        if (at == n.content.end())
            return;
        tell(inotify_kind::removed, path_of(n, name), at->second.directory != nullptr);
        erase(n, name);
    }

    void erase(node& n, const std::string& name) {
        const auto at = n.content.find(name);
        if (at == n.content.end())
            return;
        if (at->second.directory)
            leave(*at->second.directory);
        n.content.erase(at);
    }

    /// The directory and all below it are no part of the tree any more.
    void leave(node& n) {
        n.is_gone = true;
        drop_watch(n);
        for (auto& e : n.content)
            if (e.second.directory)
                leave(*e.second.directory);
    }

    void clear(node& n) {
        for (auto& e : n.content)
            if (e.second.directory)
                leave(*e.second.directory);
        n.content.clear();
    }

    void forget_watch(node& n) { by_watch_.erase(std::exchange(n.watch, -1)); }

    void drop_watch(node& n) {
        if (n.watch < 0)
            return;
        stale_.insert(n.watch);
        forget_watch(n);
    }

    void tell(inotify_kind kind, std::string path, bool is_directory) {
        changes_.push_back({kind, std::move(path), {}, is_directory, error_code()});
    }

    static std::string path_of(const node& n) {
        if (!n.parent)
            return std::string();
        return path_of(*n.parent, n.name);
    }
    static std::string path_of(const node& n, const std::string& name) {
        std::string path = path_of(n);
        if (!path.empty())
            path += '/';
        return path += name;
    }

    // ---- reading directories --------------------------------------------------------------------

    void schedule(node& n) {
        n.reading.reset(); // from the beginning
        if (!std::exchange(n.is_to_read, true))
            to_read_.push_back(n.weak_from_this());
    }

    void read_directories() {
        const clock::time_point end = clock::now() + budget_;
        while (!failure_ && !to_read_.empty()) {
            const std::shared_ptr<node> n = to_read_.front().lock();
            if (!n || n->is_gone || !read_on(*n)) {
                to_read_.pop_front();
                if (n)
                    n->is_to_read = false;
            }
            if (clock::now() >= end)
                return;
        }
        error_code ignored;
        while (!failure_ && !stale_.empty()) {
            inotify_.remove(*stale_.begin(), ignored); // may be gone already
            stale_.erase(stale_.begin());
            if (clock::now() >= end)
                return;
        }
        if (!failure_ && !std::exchange(is_ready_, true))
            tell(inotify_kind::ready, std::string(), false);
    }

    /// Opens the directory, or reads a part of it. False: it was read to the end.
    bool read_on(node& n) {
        if (n.reading.get() < 0)
            return open(n);
        alignas(dirent_head) char buffer[16 * 1024];
        const long size = ::syscall(SYS_getdents64, n.reading.get(), buffer, sizeof(buffer));
        const int error = size < 0 ? errno : 0;
        if (size > 0)
            see_all(n, buffer, static_cast<std::size_t>(size));
        if (size > 0 || error == EINTR)
            return true;
        n.reading.reset();
        if (error == 0)
            remove_unseen(n);
        else if (error != ENOENT) // it was deleted
            refuse(n, system_error_of(error));
        return false;
    }

    /// Opens a directory, name by name, from the root on: with a path, a symbolic link that has
    /// taken the place of a directory on the way would lead to a directory of another node.
    file_descriptor open_directory(const node& n, int flags) {
        std::vector<const char*> names;
        for (const node* p = &n; p->parent; p = p->parent)
            names.push_back(p->name.c_str());
        names.push_back(".");
        file_descriptor fd;
        int at = base();
        for (; at >= 0 && !names.empty(); at = fd.get()) {
            const int how = names.size() == 1 ? flags : O_PATH;
            fd.reset(::openat(at, names.back(), how | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
            names.pop_back();
        }
        return fd;
    }

    /// The descriptor is for both the watch and the reading. False: there is nothing to read.
    bool open(node& n) {
        file_descriptor fd = open_directory(n, O_RDONLY);
        if (failure_)
            return false;
        if (fd.get() < 0 && errno == EINTR)
            return true;
        if (fd.get() < 0) {
            // In the first case, it has gone, or is no directory any more. The event is to come.
            if (n.parent && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
                return false;
            return refuse(n, system_error_of(errno));
        }
        error_code ec;
        const int watch =
            inotify_.add(("/proc/self/fd/" + std::to_string(fd.get())).c_str(),
                         n.parent ? mask() : mask() | IN_DELETE_SELF | IN_MOVE_SELF, ec);
        if (ec)
            return refuse(n, ec == boost::system::errc::no_such_file_or_directory
                                 ? error_code(inotify_error::no_proc)
                                 : ec);
        if (n.watch != watch) {
            drop_watch(n);
            if (node* const other = find(watch))
                other->watch = -1; // it has moved to here
            by_watch_[watch] = &n;
            n.watch = watch;
        }
        stale_.erase(watch);
        n.refusal.clear();
        n.number = ++readings_;
        n.reading = std::move(fd);
        return true;
    }

    std::uint32_t mask() const noexcept {
        return also_ | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
               IN_EXCL_UNLINK;
    }

    /// The directory can't be watched; or the tree can't, for a reason that may pass.
    bool refuse(node& n, const error_code& ec) {
        namespace errc = boost::system::errc;
        if (!n.parent || ec == errc::too_many_files_open ||
            ec == errc::too_many_files_open_in_system || ec == errc::not_enough_memory) {
            failure_ = ec;
            return false;
        }
        clear(n);
        drop_watch(n);
        if (n.refusal != ec) {
            n.refusal = ec;
            changes_.push_back({inotify_kind::unwatched, path_of(n), {}, true, ec});
        }
        return false;
    }

    /// The part of a directory's entry that getdents64 puts before the name.
    struct dirent_head {
        std::uint64_t inode;
        std::int64_t offset;
        std::uint16_t size;
        unsigned char type;
    };
    static constexpr std::size_t name_offset = 19;

    void see_all(node& n, const char* data, std::size_t size) {
        while (size > name_offset) {
            dirent_head head;
            std::memcpy(&head, data, sizeof(head.inode) + sizeof(head.offset) + 3);
            const std::size_t length = head.size;
            if (length <= name_offset || length > size)
                return;
            const std::string name(data + name_offset,
                                   ::strnlen(data + name_offset, length - name_offset));
            data += length;
            size -= length;
            if (name == "." || name == "..")
                continue;
            bool is_directory = head.type == DT_DIR;
            if (head.type == DT_UNKNOWN) {
                struct ::stat st;
                if (::fstatat(n.reading.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
                    continue;
                is_directory = S_ISDIR(st.st_mode);
            }
            see(n, name, is_directory);
        }
    }

    /// What neither the last reading nor an event since then has seen.
    void remove_unseen(node& n) {
        for (auto at = n.content.begin(); at != n.content.end();) {
            const auto next = std::next(at);
            if (at->second.seen != n.number)
                remove(n, std::string(at->first));
            at = next;
        }
    }

    /// A descriptor of the root for this turn. (One that stays would keep the kernel from telling
    /// that the root was deleted.)
    int base() {
        if (base_.get() >= 0 || failure_)
            return base_.get();
        base_.reset(::open(root_path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        struct ::stat st;
        if (base_.get() < 0 || ::fstat(base_.get(), &st) != 0) {
            const bool is_gone = identity_ && (errno == ENOENT || errno == ENOTDIR);
            failure_ = is_gone ? error_code(inotify_error::root_gone) : system_error_of(errno);
        } else if (!identity_) {
            identity_ = identity{st.st_dev, st.st_ino};
        } else if (identity_->device != st.st_dev || identity_->inode != st.st_ino) {
            failure_ = inotify_error::root_gone;
        }
        if (failure_)
            base_.reset();
        return base_.get();
    }

    std::filesystem::path root_path_;
    std::uint32_t also_;
    clock::duration budget_;
    inotify_descriptor inotify_;
    std::shared_ptr<node> root_;
    std::optional<identity> identity_; // of the root
    file_descriptor base_;
    std::unordered_map<int, node*> by_watch_;
    std::unordered_set<int> stale_;
    std::deque<std::weak_ptr<node>> to_read_;
    std::optional<move> moving_;
    std::vector<inotify_change> changes_;
    error_code failure_; // of this turn
    std::uint64_t readings_ = 0;
    bool is_ready_ = false;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_INOTIFY_MODEL_HPP
