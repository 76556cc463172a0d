//! Calls against a server played by hand, on a clock of their own.

use std::collections::BTreeMap;

use sip::Timers;
use sip::scan::{Glance, headers, scan};

use super::*;

const SERVER: &str = "127.0.0.1:5060";
const OTHER: &str = "127.0.0.1:5070";
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const HOLD: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The caller under test, its clock, and what it has sent.
struct Table {
    load: Load,
    start: Instant,
    now: Instant,
}

#[derive(Clone, Debug)]
struct Sent {
    to: SocketAddr,
    text: Vec<u8>,
}

impl Sent {
    fn glance(&self) -> Glance<'_> {
        scan(&self.text).unwrap()
    }

    /// Method and Request-URI, or the status.
    fn start(&self) -> String {
        let line = self.text.split(|&octet| octet == b'\r').next().unwrap();
        let line = String::from_utf8(line.to_vec()).unwrap();
        line.trim_end_matches(" SIP/2.0").to_owned()
    }

    fn header(&self, name: &str) -> String {
        let value = headers(&self.text, name, None).next().unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    }

    /// A reply to this request, with `extra` header lines.
    fn reply(&self, status: u16, to_tag: Option<&str>, extra: &str) -> Vec<u8> {
        let tag = to_tag.map_or_else(String::new, |tag| format!(";tag={tag}"));
        let header = |name| self.header(name);
        format!(
            "SIP/2.0 {status} So\r\nVia: {}\r\nFrom: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{extra}\r\n",
            header("Via"),
            header("From"),
            header("To"),
            header("Call-ID"),
            header("CSeq"),
        )
        .into_bytes()
    }
}

impl Table {
    fn new(calls: u64, follows_redirects: bool) -> Self {
        let start = Instant::now();
        let schedule = Schedule {
            start,
            rate: 1_000.0,
            calls,
        };
        let terms = Terms {
            hold: HOLD,
            follows_redirects,
            patience: PATIENCE,
            timers: Timers::default(),
        };
        let script = Script {
            server: SERVER.parse().unwrap(),
            locals: vec!["127.0.0.1:9".parse().unwrap()],
            rooms: 0,
            offer: "v=0\r\n".to_owned(),
        };
        Self {
            load: Load::new(schedule, terms, script, 7),
            start,
            now: start,
        }
    }

    /// Lets time pass, waking the load whenever it wants to be, and takes what it sent when.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, Sent)> {
        let until = self.now + time;
        let mut all = Vec::new();
        loop {
            self.load.handle_timeout(self.now);
            let at = self.now - self.start;
            all.extend(self.sent().into_iter().map(|sent| (at, sent)));
            match self.load.poll_timeout() {
                Some(next) if next <= until => self.now = self.now.max(next),
                _ => break,
            }
        }
        self.now = until;
        all
    }

    /// What has been sent since the last look.
    fn sent(&mut self) -> Vec<Sent> {
        let sent = |datagram: super::super::outbox::Datagram<'_>| Sent {
            to: datagram.to,
            text: datagram.bytes.to_vec(),
        };
        let all = self.load.outbox.datagrams().map(sent).collect();
        self.load.outbox.clear();
        all
    }

    fn receive(&mut self, message: &[u8]) -> Vec<Sent> {
        let from = SERVER.parse().unwrap();
        self.load.handle_datagram(self.now, 0, from, message);
        self.sent()
    }

    /// The only message sent from now on until `time` has passed.
    #[track_caller]
    fn only(&mut self, time: Duration) -> Sent {
        let mut all = self.pass(time);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).1
    }

    /// A call that has been answered at once with this tag: its INVITE.
    #[track_caller]
    fn answered(&mut self) -> Sent {
        let invite = self.only(Duration::ZERO);
        let acks = self.receive(&invite.reply(200, Some("theirs"), CONTACT));
        assert_eq!(starts(&acks), ["ACK sip:focus@127.0.0.1:5060"]);
        invite
    }

    #[track_caller]
    fn check_failed(&self, name: &str) {
        let failed: BTreeMap<String, u64> = self
            .load
            .tally
            .failed
            .iter()
            .map(|(failure, &count)| (failure.to_string(), count))
            .collect();
        assert_eq!(failed, BTreeMap::from([(name.to_owned(), 1)]));
        assert_eq!(self.load.tally.succeeded, 0);
    }

    #[track_caller]
    fn check_succeeded(&mut self) {
        assert_eq!(self.load.tally.succeeded, 1);
        assert_eq!(self.load.tally.failures(), 0);
        assert!(self.load.is_done());
        assert!(self.pass(ms(60_000)).is_empty());
    }
}

const CONTACT: &str = "Contact: <sip:focus@127.0.0.1:5060>;isfocus\r\n";

fn starts(all: &[Sent]) -> Vec<String> {
    all.iter().map(Sent::start).collect()
}

fn times(all: &[(Duration, Sent)], method: &str) -> Vec<u64> {
    let is_it = |sent: &Sent| sent.start().starts_with(method);
    let found = all.iter().filter(|(_, sent)| is_it(sent));
    found.map(|(at, _)| at.as_millis() as u64).collect()
}

/// To three digits, as histograms keep them.
#[track_caller]
fn check_time(times: &hdrhistogram::Histogram<u64>, expected: Duration) {
    assert_eq!(times.len(), 1);
    let expected = expected.as_micros() as u64;
    assert!(
        times.max().abs_diff(expected) <= expected / 1_000,
        "{}",
        times.max()
    );
}

#[test]
fn a_call_from_invite_to_bye() {
    let mut table = Table::new(1, false);
    let invite = table.only(ms(20));
    assert_eq!(invite.start(), "INVITE sip:perf0@127.0.0.1:5060");
    assert_eq!(invite.to.to_string(), SERVER);
    assert!(table.receive(&invite.reply(100, None, "")).is_empty());
    table.pass(ms(30));
    assert!(table.receive(&invite.reply(180, Some("x"), "")).is_empty());
    let acks = table.receive(&invite.reply(200, Some("theirs"), CONTACT));
    assert_eq!(starts(&acks), ["ACK sip:focus@127.0.0.1:5060"]);
    assert_eq!(acks[0].header("CSeq"), "1 ACK");
    assert_eq!(acks[0].glance().to_tag, Some(b"theirs".as_slice()));
    assert_ne!(acks[0].glance().branch, invite.glance().branch);

    assert!(table.pass(HOLD - ms(1)).is_empty(), "hung up early");
    let bye = table.only(ms(5));
    assert_eq!(bye.start(), "BYE sip:focus@127.0.0.1:5060");
    assert_eq!(bye.header("CSeq"), "2 BYE");
    assert_eq!(bye.header("To"), acks[0].header("To"));
    assert!(!table.load.is_done());
    assert!(table.receive(&bye.reply(200, None, "")).is_empty());

    check_time(&table.load.tally.to_progress, ms(20));
    check_time(&table.load.tally.to_answer, ms(50));
    check_time(&table.load.tally.to_end, ms(4));
    table.check_succeeded();
}

#[test]
fn calls_begin_on_schedule_and_times_count_from_it() {
    let mut table = Table::new(200, false);
    assert_eq!(
        table.pass(ms(9)).len(),
        10,
        "one each millisecond, from the first on"
    );
    // The generator is held up: it makes up for it, a bounded number at a time.
    table.now += ms(90);
    table.load.handle_timeout(table.now);
    let late = table.sent();
    assert_eq!(late.len(), STARTS_PER_TURN_MAX);
    assert!(table.load.poll_timeout().unwrap() <= table.now);
    table.load.handle_timeout(table.now);
    assert_eq!(table.sent().len(), 90 - STARTS_PER_TURN_MAX);
    // The eleventh was due at 10 ms and is 89 ms late before its answer is.
    assert_eq!(table.load.tally.send_lag.max() / 1_000, 89);
    table.now += ms(11);
    table.receive(&late[0].reply(200, Some("theirs"), CONTACT));
    check_time(&table.load.tally.to_answer, ms(100));
}

#[test]
fn an_invite_is_sent_again_until_the_server_reacts() {
    let mut table = Table::new(1, false);
    let all = table.pass(ms(4_000));
    assert_eq!(times(&all, "INVITE"), [0, 500, 1_500, 3_500]);
    let texts: Vec<_> = all.iter().map(|(_, sent)| &sent.text).collect();
    assert!(
        texts.windows(2).all(|pair| pair[0] == pair[1]),
        "a repeat is the same message"
    );
    assert_eq!(table.load.tally.invites_repeated, 3);
    let invite = all[0].1.clone();
    table.receive(&invite.reply(100, None, ""));
    assert!(table.pass(ms(5_000)).is_empty());
    table.receive(&invite.reply(200, Some("theirs"), CONTACT));
    let bye = table.only(HOLD);
    table.receive(&bye.reply(200, None, ""));
    table.check_succeeded();
}

#[test]
fn many_repeats_at_once_are_sent_over_several_turns() {
    let mut table = Table::new(600, false);
    table.load.schedule.rate = 1e6;
    let all = table.pass(ms(10));
    assert_eq!(times(&all, "INVITE").len(), 600);
    table.now += T1;
    let mut turns = [0; 4];
    for turn in &mut turns {
        table.load.handle_timeout(table.now);
        *turn = table.sent().len();
    }
    assert_eq!(turns, [WAKES_PER_TURN_MAX, WAKES_PER_TURN_MAX, 88, 0]);
}

#[test]
fn an_invite_without_answer_is_given_up() {
    let mut table = Table::new(1, false);
    let all = table.pass(ms(30_000));
    assert_eq!(times(&all, "INVITE"), [0, 500, 1_500, 3_500, 7_500]);
    assert_eq!(all.len(), 5, "nothing to cancel where nobody reacted");
    table.check_failed("INVITE timeout");
    assert!(table.load.is_done());
}

#[test]
fn what_only_rings_is_cancelled_in_the_end() {
    let mut table = Table::new(1, false);
    let invite = table.only(Duration::ZERO);
    table.receive(&invite.reply(180, Some("theirs"), ""));
    let cancel = table.only(PATIENCE);
    assert_eq!(cancel.start(), "CANCEL sip:perf0@127.0.0.1:5060");
    assert_eq!(cancel.header("Via"), invite.header("Via"));
    assert_eq!(cancel.header("CSeq"), "1 CANCEL");
    assert!(
        table
            .receive(&cancel.reply(200, Some("theirs"), ""))
            .is_empty()
    );
    let acks = table.receive(&invite.reply(487, Some("theirs"), ""));
    assert_eq!(starts(&acks), ["ACK sip:perf0@127.0.0.1:5060"]);
    table.check_failed("INVITE timeout");
    table.pass(ms(10_000));
    assert!(table.load.is_done());
}

#[test]
fn a_late_answer_is_hung_up_and_stays_a_failure() {
    let mut table = Table::new(1, false);
    let invite = table.pass(PATIENCE + ms(100)).remove(0).1;
    let both = table.receive(&invite.reply(200, Some("theirs"), CONTACT));
    let expected = [
        "ACK sip:focus@127.0.0.1:5060",
        "BYE sip:focus@127.0.0.1:5060",
    ];
    assert_eq!(starts(&both), expected);
    // This BYE is sent again like any other.
    let again = table.only(T1);
    assert_eq!(again.text, both[1].text);
    table.receive(&again.reply(200, None, ""));
    assert!(table.load.is_done());
    table.check_failed("INVITE timeout");
    assert_eq!(table.load.tally.late_answers, 1);
    assert_eq!(table.load.tally.to_answer.len(), 0, "no answer in time");
}

#[test]
fn a_repeated_answer_is_acknowledged_again() {
    let mut table = Table::new(1, false);
    let invite = table.answered();
    let acks = table.receive(&invite.reply(200, Some("theirs"), CONTACT));
    assert_eq!(starts(&acks), ["ACK sip:focus@127.0.0.1:5060"]);
    assert!(
        table
            .receive(&invite.reply(200, Some("fork"), CONTACT))
            .is_empty()
    );
    assert_eq!(table.load.tally.strays, 1);
    let bye = table.only(HOLD);
    // Also when the BYE has overtaken the ACK.
    assert_eq!(
        table
            .receive(&invite.reply(200, Some("theirs"), CONTACT))
            .len(),
        1
    );
    table.receive(&bye.reply(200, None, ""));
    assert_eq!(table.load.tally.to_answer.len(), 1);
    table.check_succeeded();
}

#[test]
fn a_bye_is_sent_again_at_longer_and_longer_intervals() {
    let mut table = Table::new(1, false);
    table.answered();
    let all = table.pass(HOLD + PATIENCE - ms(1));
    let at = |after: u64| HOLD.as_millis() as u64 + after;
    assert_eq!(times(&all, "BYE"), [0, 500, 1_500, 3_500, 7_500].map(at));
    assert_eq!(all.len(), 5);
    assert_eq!(table.load.tally.byes_repeated, 4);
    table.receive(&all[4].1.reply(200, None, ""));
    check_time(&table.load.tally.to_end, PATIENCE - ms(1));
    table.check_succeeded();
}

#[test]
fn a_bye_without_answer_is_given_up() {
    let mut table = Table::new(1, false);
    table.answered();
    table.pass(HOLD);
    table.pass(PATIENCE + Timers::default().t4);
    table.check_failed("BYE timeout");
    assert!(table.load.is_done());
}

#[test]
fn a_provisional_answer_slows_the_bye_down() {
    let mut table = Table::new(1, false);
    table.answered();
    let bye = table.only(HOLD);
    table.receive(&bye.reply(100, None, ""));
    let at = |after: Duration| (HOLD + after).as_millis() as u64;
    assert_eq!(
        times(&table.pass(ms(9_000)), "BYE"),
        [at(T1), at(T1 + T2), at(T1 + T2 + T2)]
    );
}

#[test]
fn refusals_are_failures_by_name() {
    let mut table = Table::new(1, true);
    let invite = table.only(Duration::ZERO);
    for _ in 0..2 {
        // The second time because the ACK was lost.
        let acks = table.receive(&invite.reply(486, Some("no"), ""));
        assert_eq!(starts(&acks), ["ACK sip:perf0@127.0.0.1:5060"]);
        assert_eq!(acks[0].header("Via"), invite.header("Via"));
        assert_eq!(
            acks[0].header("To"),
            format!("{};tag=no", invite.header("To"))
        );
    }
    table.check_failed("INVITE 486");
    table.pass(ms(10_000));
    assert!(table.load.is_done());

    let mut table = Table::new(1, false);
    table.answered();
    let bye = table.only(HOLD);
    table.receive(&bye.reply(481, None, ""));
    table.check_failed("BYE 481");
    assert!(table.load.is_done());

    let mut table = Table::new(1, false);
    let invite = table.only(Duration::ZERO);
    assert!(table.receive(&invite.reply(200, None, CONTACT)).is_empty());
    table.check_failed("200 without a To-tag");
}

#[test]
fn a_redirect_is_followed() {
    let mut table = Table::new(1, true);
    let first = table.only(ms(3));
    let contact = "Contact: <sip:perf0@127.0.0.1:5070;transport=udp>;q=1.0\r\n";
    let moved = first.reply(302, Some("moved"), contact);
    let both = table.receive(&moved);
    let uri = "sip:perf0@127.0.0.1:5070;transport=udp";
    let expected = [
        "ACK sip:perf0@127.0.0.1:5060".to_owned(),
        format!("INVITE {uri}"),
    ];
    assert_eq!(starts(&both), expected);
    let peers: Vec<_> = both.iter().map(|sent| sent.to.to_string()).collect();
    assert_eq!(peers, [SERVER, OTHER]);
    let second = &both[1];
    assert_eq!(second.header("CSeq"), "2 INVITE");
    assert_eq!(second.header("To"), first.header("To"));
    assert_eq!(second.header("Call-ID"), first.header("Call-ID"));
    assert_ne!(second.glance().branch, first.glance().branch);

    // The ACK was lost: again, to the first server and nothing to the second.
    let acks = table.receive(&moved);
    assert_eq!(starts(&acks), ["ACK sip:perf0@127.0.0.1:5060"]);
    assert_eq!(
        (
            acks[0].to.to_string().as_str(),
            acks[0].header("CSeq").as_str()
        ),
        (SERVER, "1 ACK")
    );
    // The second INVITE has timers of its own.
    assert_eq!(table.only(T1).text, second.text);

    let contact = "Contact: <sip:focus@127.0.0.1:5070>\r\n";
    let acks = table.receive(&second.reply(200, Some("theirs"), contact));
    assert_eq!(starts(&acks), ["ACK sip:focus@127.0.0.1:5070"]);
    assert_eq!(acks[0].to.to_string(), OTHER);
    let bye = table.only(HOLD);
    assert_eq!(
        (bye.to.to_string().as_str(), bye.header("CSeq").as_str()),
        (OTHER, "3 BYE")
    );
    table.receive(&bye.reply(200, None, ""));
    check_time(&table.load.tally.to_redirect, ms(3));
    // From the first INVITE on.
    check_time(&table.load.tally.to_answer, ms(503));
    table.check_succeeded();
}

#[test]
fn redirects_that_lead_nowhere_end_the_call() {
    let elsewhere = "Contact: <sip:perf0@127.0.0.1:5070>\r\n";
    let mut table = Table::new(1, false);
    let invite = table.only(Duration::ZERO);
    assert_eq!(
        table
            .receive(&invite.reply(302, Some("moved"), elsewhere))
            .len(),
        1
    );
    assert_eq!(
        (
            table.load.tally.to_redirect.len(),
            table.load.tally.sent_elsewhere
        ),
        (1, 1)
    );
    assert_eq!(
        (table.load.tally.succeeded, table.load.tally.failures()),
        (0, 0)
    );

    for contact in ["", "Contact: <sip:perf0@192.0.2.1>\r\n"] {
        let mut table = Table::new(1, true);
        let invite = table.only(Duration::ZERO);
        let acks = table.receive(&invite.reply(302, Some("moved"), contact));
        assert_eq!(starts(&acks), ["ACK sip:perf0@127.0.0.1:5060"]);
        table.check_failed("redirect to no loopback address");
    }

    let mut table = Table::new(1, true);
    let mut invite = table.only(Duration::ZERO);
    for _ in 0..5 {
        let both = table.receive(&invite.reply(302, Some("moved"), elsewhere));
        assert_eq!(both.len(), 2);
        invite = both[1].clone();
    }
    let acks = table.receive(&invite.reply(302, Some("moved"), elsewhere));
    assert_eq!(starts(&acks), ["ACK sip:perf0@127.0.0.1:5070"]);
    table.check_failed("too many redirects");
}

#[test]
fn requests_of_the_server_are_answered() {
    let mut table = Table::new(1, false);
    let invite = table.answered();
    let request = |method: &str, call_id: &str| {
        format!(
            "{method} sip:caller0@127.0.0.1:9 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1-1\r\n\
            From: <sip:x>;tag=theirs\r\nTo: <sip:y>;tag={call_id}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n\r\n"
        )
        .into_bytes()
    };
    let call_id = invite.header("Call-ID");
    let answers = table.receive(&request("INFO", &call_id));
    assert_eq!(starts(&answers), ["SIP/2.0 501 Not Implemented"]);
    for _ in 0..2 {
        let answers = table.receive(&request("BYE", &call_id));
        assert_eq!(starts(&answers), ["SIP/2.0 200 OK"]);
        assert_eq!(answers[0].header("Call-ID"), call_id);
    }
    table.check_failed("BYE from the server");
    assert!(table.pass(ms(10_000)).is_empty(), "no BYE of our own");
    assert!(table.load.is_done());
    let answers = table.receive(&request("BYE", &call_id));
    assert_eq!(
        starts(&answers),
        ["SIP/2.0 481 Call/Transaction Does Not Exist"]
    );
}

#[test]
fn what_belongs_to_no_call_changes_nothing() {
    let mut table = Table::new(1, false);
    let invite = table.only(Duration::ZERO);
    let answer = String::from_utf8(invite.reply(200, Some("theirs"), CONTACT)).unwrap();
    let call_id = invite.header("Call-ID");
    let strays = [
        "garbage".to_owned(),
        answer.replace(&call_id, "00000008-0-0"),
        answer.replace(&call_id, "00000007-1-0"),
        answer.replace(&call_id, "00000007-0-1"),
        answer.replace(&call_id, "other"),
        answer.replace("CSeq: 1 INVITE", "CSeq: 1 INFO"),
        answer.replace("branch=z9hG4bK", "branch="),
        // Of a BYE that has not been sent, and of an INVITE that has not either.
        answer.replace("CSeq: 1 INVITE", "CSeq: 1 BYE"),
        answer.replace(&format!("{call_id}-1;"), &format!("{call_id}-2;")),
    ];
    for (count, stray) in strays.iter().enumerate() {
        assert!(table.receive(stray.as_bytes()).is_empty(), "{stray}");
        assert_eq!(table.load.tally.strays, count as u64 + 1, "{stray}");
    }
    assert_eq!(table.receive(answer.as_bytes()).len(), 1);
}

#[test]
fn a_place_is_used_again_by_another_call() {
    let mut table = Table::new(2, false);
    table.load.schedule.rate = 0.5;
    let first = table.answered();
    let bye = table.only(HOLD);
    table.receive(&bye.reply(200, None, ""));
    let second = table.only(HOLD);
    let slot = |invite: &Sent| CallId::parse(invite.glance().call_id).unwrap().slot;
    assert_eq!(slot(&first), slot(&second));
    // A repeat for the first call, which is over.
    assert!(
        table
            .receive(&first.reply(200, Some("theirs"), CONTACT))
            .is_empty()
    );
    assert_eq!(table.load.tally.strays, 1);
    assert_eq!(table.load.tally.to_answer.len(), 1);
}
