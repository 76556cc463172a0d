//! How servers are found, and what makes one known.

use super::*;

fn invites(hub: &mut Hub) -> (Vec<Flow>, Vec<u64>) {
    let (mut invited, mut asked) = (Vec::new(), Vec::new());
    while let Some(output) = hub.poll_output() {
        match output {
            Output::Transmit { flow, .. } => invited.push(flow),
            Output::Resolve { ticket, .. } => asked.push(ticket),
            _ => {}
        }
    }
    (invited, asked)
}

fn pass(hub: &mut Hub, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while let Some(due) = hub.poll_timeout().filter(|due| *due <= end) {
        *now = due.max(*now);
        hub.handle_timeout(*now);
    }
    *now = end;
}

#[test]
fn a_name_that_takes_long_is_dialled_when_it_is_known() {
    let mut now = Instant::now();
    let mut hub = Hub::new(config(0, &["sip:cfw@b.example".to_owned()], &[]), now);
    let (invited, asked) = invites(&mut hub);
    let [ticket] = asked[..] else {
        panic!("{asked:?}");
    };
    // The dial has been given up, and nobody has asked once more.
    pass(&mut hub, &mut now, Duration::from_millis(2_100));
    assert_eq!((invited.len(), hub.links()), (0, 0));
    let there = SocketAddr::new(address(1), SIP_PORT);
    hub.resolved(now, ticket, &[there]);
    pass(&mut hub, &mut now, Duration::from_secs(1));
    let (invited, asked) = invites(&mut hub);
    assert_eq!(invited.first().map(|flow| flow.peer), Some(there));
    assert!(asked.is_empty());

    // One that dials meanwhile waits for the same answer.
    let mut now = Instant::now();
    let mut hub = Hub::new(config(0, &["sip:cfw@b.example".to_owned()], &[]), now);
    let (_, asked) = invites(&mut hub);
    pass(&mut hub, &mut now, Duration::from_secs(3));
    assert_eq!((invites(&mut hub), hub.links()), ((vec![], vec![]), 1));
    hub.resolved(now, asked[0], &[there]);
    assert_eq!(invites(&mut hub).0.len(), 1);
}

#[test]
fn whom_a_peer_tells_of_is_no_stranger() {
    // A knows both, and they know A.
    let a = config(0, &[cfw_uri(1), cfw_uri(2)], &[]);
    let others = [1, 2].map(|index| config(index, &[cfw_uri(0)], &[]));
    let mut net = Net::new([a].into_iter().chain(others).collect());
    net.run(10.0);
    assert_eq!(net.up(), [2, 2, 2]);
}

#[test]
fn channels_have_names_that_follow_from_the_secret_alone() {
    let name = |secret: u8| {
        let config = Config {
            secret: [secret; 32],
            ..config(0, &[cfw_uri(1)], &[])
        };
        let mut now = Instant::now();
        let mut hub = Hub::new(config, now);
        pass(&mut hub, &mut now, Duration::ZERO);
        let invite = std::iter::from_fn(|| hub.poll_output()).find_map(|output| match output {
            Output::Transmit { message, .. } => Some(message),
            _ => None,
        });
        let invite = String::from_utf8(invite.unwrap().to_vec()).unwrap();
        let (_, rest) = invite.split_once("a=cfw-id:").unwrap();
        rest.lines().next().unwrap().to_owned()
    };
    assert_eq!(name(1), name(1));
    assert_ne!(name(1), name(2));
}
