//! `recvmmsg` and `sendmmsg`: many datagrams of one socket for one system call.
//!
//! The only unsafe code of the I/O layer. Every pointer the kernel is given leads into heap memory that
//! the same value owns and never moves; lengths are set before each call and believed only after it.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use arrayvec::ArrayVec;

use super::{Arrival, DATAGRAM_LEN_MAX, MEDIA_LEN_MAX, TOGETHER_MAX, Token};

/// Datagrams for one call. More gain nothing: at 64 the call itself costs each of them 2 ns.
pub(super) const BATCH: usize = TOGETHER_MAX;

/// Where the first bytes of a datagram go; all of it, unless it is a long SIP message. Not a power of
/// two, or all slots would compete for the same few sets of the cache.
const SLOT_LEN: usize = MEDIA_LEN_MAX;
const REST_LEN: usize = DATAGRAM_LEN_MAX - SLOT_LEN;

/// Lets the kernel leave out what only serves fragments of datagrams: media fit every path, so they go
/// with "don't fragment" and need no identification (RFC 6864 §4), which costs a shared counter each.
/// Without effect on IPv6, where routers do not fragment.
pub(super) fn dont_fragment(socket: BorrowedFd<'_>) {
    let probe: libc::c_int = libc::IP_PMTUDISC_PROBE;
    // SAFETY: the option is an int, and the kernel reads that many bytes of a live one.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const probe).cast(),
            size_of_val(&probe) as libc::socklen_t,
        );
    }
}

/// A socket address as the kernel writes it; IPv6 is the longest there is for UDP.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    fn empty() -> Self {
        // SAFETY: all fields of both are integers, for which zero is a value.
        unsafe { mem::zeroed() }
    }

    fn set(&mut self, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(v4) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*v4.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }

    fn get(&self) -> Option<SocketAddr> {
        // SAFETY: both members begin with the family, and any bits are a value of either.
        let family = libc::c_int::from(unsafe { self.v4.sin_family });
        match family {
            libc::AF_INET => {
                // SAFETY: as above.
                let v4 = unsafe { self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn messages() -> Box<[libc::mmsghdr]> {
    // SAFETY: integers and pointers, for which zero (null) is a value.
    (0..BATCH).map(|_| unsafe { mem::zeroed() }).collect()
}

const EMPTY: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

/// Receives up to [`BATCH`] datagrams at a time and keeps them until the next call.
pub(super) struct Inbox {
    messages: Box<[libc::mmsghdr]>,
    names: Box<[Name]>,
    slots: Box<[u8]>,
    /// What does not fit a slot; hardly ever touched, so hardly ever memory.
    rests: Box<[u8]>,
    /// `messages` point in here.
    _pieces: Box<[[libc::iovec; 2]]>,
    /// A long datagram put together.
    whole: Vec<u8>,
    /// How much of a datagram is wanted, now: its slot, or its rest too.
    wanted: Wanted,
    used: usize,
}

/// How long datagrams of a socket may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Up to [`MEDIA_LEN_MAX`]. The kernel takes in one piece of memory for each datagram much quicker
    /// than two.
    Media,
    /// As long as there are.
    Any,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let mut slots = vec![0; BATCH * SLOT_LEN].into_boxed_slice();
        let mut rests = vec![0; BATCH * REST_LEN].into_boxed_slice();
        let mut names = vec![Name::empty(); BATCH].into_boxed_slice();
        let mut pieces = vec![[EMPTY; 2]; BATCH].into_boxed_slice();
        let mut messages = messages();
        let memory = slots
            .chunks_exact_mut(SLOT_LEN)
            .zip(rests.chunks_exact_mut(REST_LEN))
            .zip(names.iter_mut().zip(pieces.iter_mut()))
            .zip(messages.iter_mut());
        for (((slot, rest), (name, pieces)), message) in memory {
            *pieces = [slot, rest].map(|piece| libc::iovec {
                iov_base: piece.as_mut_ptr().cast(),
                iov_len: piece.len(),
            });
            message.msg_hdr.msg_iov = pieces.as_mut_ptr();
            message.msg_hdr.msg_iovlen = pieces.len() as _;
            message.msg_hdr.msg_name = ptr::from_mut(name).cast();
        }
        Self {
            messages,
            names,
            slots,
            rests,
            _pieces: pieces,
            whole: Vec::new(),
            wanted: Wanted::Any,
            used: BATCH,
        }
    }

    /// Takes in what waits in the socket's buffer; returns how many that were. Fewer than [`BATCH`]
    /// means that there were no more.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, wanted: Wanted) -> io::Result<usize> {
        if wanted != self.wanted {
            self.wanted = wanted;
            for message in &mut self.messages {
                message.msg_hdr.msg_iovlen = match wanted {
                    Wanted::Media => 1,
                    Wanted::Any => 2,
                };
            }
        }
        for message in &mut self.messages[..self.used] {
            message.msg_hdr.msg_namelen = size_of::<Name>() as libc::socklen_t;
        }
        self.used = 0;
        // SAFETY: each message leads to a name, one or two pieces and their memory, all owned by `self` behind
        // boxes that are never replaced, and `self` is borrowed for the whole call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.used = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.used)
    }

    /// Shows the datagrams received last, in their order: long ones each for itself. One that was longer
    /// than wanted, or whose sender cannot be told, is left out.
    pub(super) fn show(&mut self, token: Token, arrived: &mut dyn FnMut(&[Arrival<'_>])) {
        let mut next = 0;
        while next < self.used {
            let mut together = ArrayVec::<Arrival<'_>, BATCH>::new();
            while next < self.used && self.len(next) <= SLOT_LEN {
                if !self.is_truncated(next)
                    && let Some(from) = self.names[next].get()
                {
                    let datagram = &self.slots[next * SLOT_LEN..][..self.len(next)];
                    together.push(Arrival {
                        token,
                        from,
                        datagram,
                    });
                }
                next += 1;
            }
            if !together.is_empty() {
                arrived(&together);
            }
            drop(together);
            if next < self.used {
                self.show_long(next, token, arrived);
                next += 1;
            }
        }
    }

    fn show_long(&mut self, index: usize, token: Token, arrived: &mut dyn FnMut(&[Arrival<'_>])) {
        let Some(from) = self.names[index].get() else {
            return;
        };
        let rest = (self.len(index) - SLOT_LEN).min(REST_LEN);
        self.whole.clear();
        self.whole
            .extend_from_slice(&self.slots[index * SLOT_LEN..][..SLOT_LEN]);
        self.whole
            .extend_from_slice(&self.rests[index * REST_LEN..][..rest]);
        arrived(&[Arrival {
            token,
            from,
            datagram: &self.whole,
        }]);
    }

    fn is_truncated(&self, index: usize) -> bool {
        self.messages[index].msg_hdr.msg_flags & libc::MSG_TRUNC != 0
    }

    fn len(&self, index: usize) -> usize {
        self.messages[index].msg_len as usize
    }
}

/// One datagram to send, and where to.
pub(super) struct Outgoing<'a> {
    pub(super) to: SocketAddr,
    pub(super) datagram: &'a [u8],
}

/// Sends up to [`BATCH`] datagrams at a time.
pub(super) struct Sender {
    messages: Box<[libc::mmsghdr]>,
    names: Box<[Name]>,
    pieces: Box<[libc::iovec]>,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self {
            messages: messages(),
            names: vec![Name::empty(); BATCH].into_boxed_slice(),
            pieces: vec![EMPTY; BATCH].into_boxed_slice(),
        }
    }

    /// Sends all of `outgoing`; returns how many the kernel took.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        mut outgoing: impl Iterator<Item = Outgoing<'a>>,
    ) -> u64 {
        let mut sent = 0;
        loop {
            let mut filled = 0;
            for (index, outgoing) in outgoing.by_ref().take(BATCH).enumerate() {
                self.fill(index, &outgoing);
                filled = index + 1;
            }
            if filled == 0 {
                return sent;
            }
            sent += self.send_filled(socket, filled);
        }
    }

    fn fill(&mut self, index: usize, outgoing: &Outgoing<'_>) {
        let name = &mut self.names[index];
        let piece = &mut self.pieces[index];
        *piece = libc::iovec {
            iov_base: outgoing.datagram.as_ptr().cast_mut().cast(),
            iov_len: outgoing.datagram.len(),
        };
        let header = &mut self.messages[index].msg_hdr;
        header.msg_namelen = name.set(outgoing.to);
        header.msg_name = ptr::from_mut(name).cast();
        header.msg_iov = piece;
        header.msg_iovlen = 1;
    }

    fn send_filled(&mut self, socket: BorrowedFd<'_>, filled: usize) -> u64 {
        let mut sent = 0;
        let mut next = 0;
        while next < filled {
            let messages = &mut self.messages[next..filled];
            // SAFETY: `fill` has just pointed each of these messages to a name and a piece of `self`, and
            // the piece to bytes that the iterator of our only caller lends until `send` returns. The
            // kernel only reads them.
            let taken = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    messages.len() as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            match usize::try_from(taken) {
                Ok(taken) => {
                    sent += taken as u64;
                    next += taken;
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // The first of them cannot be sent; the next one may be.
                Err(_) => next += 1,
            }
        }
        sent
    }
}
