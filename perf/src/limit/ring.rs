//! io_uring as one would build a media path on it: registered sockets, multishot receives into one ring of
//! provided buffers for all of them, sends in batches, completions only of what failed, task work deferred
//! to our own calls.
//!
//! The kernel is given pointers into memory that the same value owns, on the heap, and never moves.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use engine::io::HARVEST_MAX;
use io_uring::types::{BufRingEntry, Fixed, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::echo::Way;
use super::{HEADER_LEN, PACKET_LEN};

/// Provided buffers, for all sockets: what may arrive between two turns, and more.
const BUFFERS: u16 = 8_192;

/// Header, name and datagram of one arrival; no power of two, or all would compete for a few cache sets.
const BUFFER_LEN: usize = 320;

const SUBMISSIONS: u32 = 1_024;
const GROUP: u16 = 0;

/// Marks completions of sends; receives carry the place of their socket.
const SEND: u64 = u64::MAX;

pub(super) struct Ring {
    // Declared first, so dropped first: nothing is under way any more when the memory below goes.
    ring: IoUring,
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    buffers: Buffers,
    /// Says how long a name is; all receives share it.
    receive: Box<libc::msghdr>,
    sends: Sends,
    /// Receives that have ended and are to be armed again.
    ended: Vec<usize>,
}

/// The ring of provided buffers, and the buffers.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: Box<[u8]>,
    tail: u16,
}

const PAGE: usize = 4_096;

fn entries_layout() -> Layout {
    Layout::from_size_align(usize::from(BUFFERS) * size_of::<BufRingEntry>(), PAGE)
        .expect("a few pages")
}

impl Buffers {
    fn new() -> Self {
        let layout = entries_layout();
        // SAFETY: the layout is not empty.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) })
            .unwrap_or_else(|| handle_alloc_error(layout))
            .cast();
        let mut buffers = Self {
            entries,
            memory: vec![0; usize::from(BUFFERS) * BUFFER_LEN].into(),
            tail: 0,
        };
        (0..BUFFERS).for_each(|id| buffers.provide(id));
        buffers.publish();
        buffers
    }

    fn get(&self, id: u16) -> &[u8] {
        &self.memory[usize::from(id) * BUFFER_LEN..][..BUFFER_LEN]
    }

    /// Gives a buffer to the kernel, once [`publish`](Self::publish) has told it.
    fn provide(&mut self, id: u16) {
        let place = usize::from(self.tail % BUFFERS);
        let address = &raw mut self.memory[usize::from(id) * BUFFER_LEN];
        // SAFETY: the place is one of the entries, zeroed at first, which is a value. The kernel reads an
        // entry only after the tail has passed it, so nobody else looks at this one now.
        let entry = unsafe { &mut *self.entries.as_ptr().add(place) };
        entry.set_addr(address as u64);
        entry.set_len(BUFFER_LEN as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the first entry, aligned, and both sides access it atomically; `set_*`
        // do not touch its bytes.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; the ring that knew it is gone.
        unsafe { dealloc(self.entries.as_ptr().cast(), entries_layout()) }
    }
}

/// Memory of the messages that are being sent.
struct Sends {
    messages: Box<[libc::msghdr]>,
    names: Box<[libc::sockaddr_in]>,
    /// `messages` point in here.
    _pieces: Box<[[libc::iovec; 2]]>,
    /// And the pieces in here: a header and a payload that all share.
    _packet: Box<[u8; PACKET_LEN]>,
}

impl Sends {
    fn new() -> Self {
        let count = SUBMISSIONS as usize;
        let mut packet = Box::new([0xD5_u8; PACKET_LEN]);
        packet[..HEADER_LEN].fill(0x80);
        let (header, payload) = packet.split_at(HEADER_LEN);
        let piece = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut pieces = vec![[piece(header), piece(payload)]; count].into_boxed_slice();
        // SAFETY: integers, for which zero is a value.
        let mut names =
            vec![unsafe { mem::zeroed::<libc::sockaddr_in>() }; count].into_boxed_slice();
        // SAFETY: integers and pointers, for which zero (null) is a value.
        let mut messages = vec![unsafe { mem::zeroed::<libc::msghdr>() }; count].into_boxed_slice();
        for ((message, name), pieces) in messages.iter_mut().zip(&mut names).zip(&mut pieces) {
            message.msg_name = ptr::from_mut(name).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_iov = pieces.as_mut_ptr();
            message.msg_iovlen = pieces.len() as _;
        }
        Self {
            messages,
            names,
            _pieces: pieces,
            _packet: packet,
        }
    }
}

impl Ring {
    /// # Errors
    /// `Unsupported` where the kernel lacks io_uring or one of the features.
    pub(super) fn open(sockets: usize) -> io::Result<Self> {
        let lacks = |what: &'static str| {
            move |error: io::Error| {
                io::Error::new(io::ErrorKind::Unsupported, format!("{what}: {error}"))
            }
        };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(u32::from(BUFFERS) * 2)
            .build(SUBMISSIONS)
            .map_err(lacks("a ring with deferred task work"))?;
        if !ring.params().is_feature_skip_cqe_on_success() {
            let error = io::Error::from(io::ErrorKind::Unsupported);
            return Err(lacks("silent completions")(error));
        }
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets: Vec<UdpSocket> = (0..sockets)
            .map(|_| {
                let socket = UdpSocket::bind(here)?;
                let buffers = socket2::SockRef::from(&socket);
                buffers.set_recv_buffer_size(4 << 20)?;
                buffers.set_send_buffer_size(4 << 20)?;
                Ok(socket)
            })
            .collect::<io::Result<_>>()?;
        let addresses = sockets
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<io::Result<_>>()?;
        let descriptors: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter()
            .register_files(&descriptors)
            .map_err(lacks("registered sockets"))?;
        let buffers = Buffers::new();
        // SAFETY: the entries are pages of our own that live until the ring is gone: `buffers` is dropped
        // after it.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(buffers.entries.as_ptr() as u64, BUFFERS, GROUP, 0)
                .map_err(lacks("provided buffers"))?;
        }
        // SAFETY: integers and pointers, for which zero (null) is a value.
        let mut receive: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        receive.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let ended = (0..sockets.len()).collect();
        Ok(Self {
            ring,
            sockets,
            addresses,
            buffers,
            receive,
            sends: Sends::new(),
            ended,
        })
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what entries point to is memory of `self` that is only freed after the ring; a
            // send's message is not written again before `submit` has returned, and with MSG_DONTWAIT the
            // kernel is done with it by then.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn arm(&mut self) -> io::Result<()> {
        while let Some(place) = self.ended.pop() {
            let receive =
                opcode::RecvMsgMulti::new(Fixed(place as u32), &raw const *self.receive, GROUP)
                    .build()
                    .user_data(place as u64);
            self.push(&receive)?;
        }
        Ok(())
    }

    /// Takes in one completion. Returns whose packet is to be answered, and through which socket.
    fn complete(&mut self, completion: &cqueue::Entry) -> Option<(usize, libc::sockaddr_in)> {
        if completion.user_data() == SEND {
            return None;
        }
        let place = completion.user_data() as usize;
        if !cqueue::more(completion.flags()) {
            self.ended.push(place);
        }
        let buffer = cqueue::buffer_select(completion.flags())?;
        let arrived = RecvMsgOut::parse(self.buffers.get(buffer), &self.receive).ok();
        let name = arrived
            .filter(|arrived| arrived.payload_data().len() == PACKET_LEN && completion.result() > 0)
            .filter(|arrived| arrived.name_data().len() == size_of::<libc::sockaddr_in>())
            .map(|arrived| {
                let name = arrived.name_data().as_ptr().cast::<libc::sockaddr_in>();
                // SAFETY: as many bytes as that, all integers.
                unsafe { name.read_unaligned() }
            });
        self.buffers.provide(buffer);
        Some((place, name?))
    }
}

impl Way for Ring {
    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    fn echo(&mut self) -> io::Result<u64> {
        debug_assert_eq!(self.sockets.len(), self.addresses.len());
        self.arm()?;
        // Also runs what the kernel deferred, which puts arrivals into the completion queue.
        self.ring.submit()?;
        let mut echoed = 0;
        let mut filled = 0;
        while echoed < HARVEST_MAX as u64 {
            let Some(completion) = self.ring.completion().next() else {
                break;
            };
            let Some((place, name)) = self.complete(&completion) else {
                continue;
            };
            if filled == self.sends.messages.len() {
                self.ring.submit()?;
                filled = 0;
            }
            self.sends.names[filled] = name;
            let send =
                opcode::SendMsg::new(Fixed(place as u32), &raw const self.sends.messages[filled])
                    .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS)
                    .user_data(SEND);
            self.push(&send)?;
            filled += 1;
            echoed += 1;
        }
        self.buffers.publish();
        self.ring.submit()?;
        Ok(echoed)
    }
}
