// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The workloads on tokio::io::unix::AsyncFd. See competitor.h.

use std::ffi::c_void;
use std::future::Future;
use std::os::unix::io::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

const RING: i32 = 0;
const READY: i32 = 1;
const CHURN: i32 = 2;

/// As in competitor.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Spec {
    kind: i32,
    handles: *const RawFd,
    count: usize,
    chatter: RawFd,
    threads: u32,
    drains: i32,
    context: *mut c_void,
    take: extern "C" fn(*mut c_void, u32, i32) -> i32,
    pass_on: Option<extern "C" fn(*mut c_void, u32) -> i32>,
    put: Option<extern "C" fn(*mut c_void)>,
}

// What the context points to may be used from any thread.
unsafe impl Send for Spec {}
unsafe impl Sync for Spec {}

impl Spec {
    fn take(&self, i: u32, again: bool) -> bool {
        (self.take)(self.context, i, again as i32) != 0
    }
    fn pass_on(&self, i: u32) -> bool {
        (self.pass_on.expect("a ring"))(self.context, i) != 0
    }
    fn put(&self) {
        (self.put.expect("no ring"))(self.context)
    }
}

pub struct Competitor {
    spec: Spec,
    handle: RawFd,
    ready: Option<AsyncFd<RawFd>>,
    _chatter: Option<AsyncFd<RawFd>>,
    finished: Arc<Notify>,
    runtime: Runtime,
}

fn open(handle: RawFd) -> AsyncFd<RawFd> {
    AsyncFd::with_interest(handle, Interest::READABLE).expect("AsyncFd")
}

/// Waits for one handle of a ring, for ever.
async fn station(handle: AsyncFd<RawFd>, i: u32, spec: Spec, finished: Arc<Notify>) {
    loop {
        let mut guard = handle.readable().await.expect("readable");
        if !spec.take(i, false) {
            // With several threads it may have been an older event's readiness.
            guard.clear_ready();
            continue;
        }
        if spec.drains != 0 {
            // A second read, which would block; try_io clears the readiness then.
            let _ = guard.try_io(|_| match spec.take(i, true) {
                false => Err(std::io::ErrorKind::WouldBlock.into()),
                true => Ok(()),
            });
        } else {
            // The read was short: that was all.
            guard.clear_ready();
        }
        if spec.pass_on(i) {
            finished.notify_one();
        }
    }
}

/// Polls a future once, whatever it says.
struct Begun<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for Begun<'_, F> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        assert!(self.0.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }
}

async fn wait_often(handle: &AsyncFd<RawFd>, times: u64) {
    for _ in 0..times {
        handle.readable().await.expect("readable").retain_ready();
    }
}

async fn churn(handle: RawFd, spec: Spec, times: u64) {
    for _ in 0..times {
        if spec.kind == CHURN {
            spec.put();
            let handle = open(handle);
            handle.readable().await.expect("readable").clear_ready();
            spec.take(0, false);
        } else {
            let handle = open(handle);
            let wait = handle.readable();
            tokio::pin!(wait);
            Begun(wait.as_mut()).await;
            spec.put();
            wait.await.expect("readable").clear_ready();
            spec.take(0, false);
        }
    }
}

/// # Safety
/// `spec` and its handles are as competitor.h has them.
#[no_mangle]
pub unsafe extern "C" fn moor_tokio_new(spec: *const Spec) -> *mut Competitor {
    let spec = *spec;
    let mut builder = match spec.threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if spec.threads > 1 {
        builder.worker_threads(spec.threads as usize);
    }
    let runtime = match builder.enable_io().build() {
        Ok(runtime) => runtime,
        Err(_) => return std::ptr::null_mut(),
    };
    let finished = Arc::new(Notify::new());
    let handles = std::slice::from_raw_parts(spec.handles, spec.count);
    let entered = runtime.enter();
    if spec.kind == RING {
        for (i, handle) in handles.iter().enumerate() {
            runtime.spawn(station(open(*handle), i as u32, spec, finished.clone()));
        }
    }
    let ready = (spec.kind == READY).then(|| open(handles[0]));
    let chatter = (spec.chatter != -1).then(|| open(spec.chatter));
    drop(entered);
    runtime.block_on(async {
        if let Some(handle) = &chatter {
            wait_often(handle, 1).await;
        }
        // Every task gets to its first wait.
        for _ in 0..=spec.count {
            tokio::task::yield_now().await;
        }
    });
    Box::into_raw(Box::new(Competitor {
        spec,
        handle: handles[0],
        ready,
        _chatter: chatter,
        finished,
        runtime,
    }))
}

/// # Safety
/// `competitor` is what moor_tokio_new returned.
#[no_mangle]
pub unsafe extern "C" fn moor_tokio_run(competitor: *mut Competitor, times: u64) {
    let competitor = &*competitor;
    match competitor.spec.kind {
        RING => competitor.runtime.block_on(competitor.finished.notified()),
        READY => competitor.runtime.block_on(wait_often(competitor.ready.as_ref().expect("ready"), times)),
        _ => competitor.runtime.block_on(churn(competitor.handle, competitor.spec, times)),
    }
}

/// # Safety
/// `competitor` is what moor_tokio_new returned, and is not used any more.
#[no_mangle]
pub unsafe extern "C" fn moor_tokio_free(competitor: *mut Competitor) {
    drop(Box::from_raw(competitor));
}
