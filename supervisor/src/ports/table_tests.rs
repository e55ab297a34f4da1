use super::super::owner::Owner;
use super::*;
use proptest::prelude::*;
use whim_wire::port::PortProcess;

const AGENT: u32 = 1001;

fn policy() -> Policy {
    Policy {
        own: [3001, 8080].into(),
        ephemeral: 32768..=60999,
        preview: "https://{port}-x.example/".into(),
        agents_uid: AGENT,
    }
}

fn on(port: u16, address: &str, inode: u64) -> Listener {
    Listener {
        port,
        address: address.parse().unwrap(),
        interface: 0,
        inode,
        uid: AGENT,
        dual: false,
    }
}

fn owner(pid: u32, command: &str) -> Owner {
    Owner {
        process: PortProcess {
            pid,
            name: command.split(' ').next().unwrap().into(),
            command: command.into(),
        },
        start: u64::from(pid),
        session: None,
    }
}

fn at(ms: i64) -> Time {
    Time::from(jiff::Timestamp::from_millisecond(ms).unwrap())
}

fn step(
    table: &mut Table,
    scan: &[Listener],
    owners: &[(u64, Owner)],
    ms: i64,
) -> Vec<(PortChange, u16)> {
    let mut scan = scan.to_vec();
    scan.sort_unstable();
    table
        .scanned(scan, owners.iter().cloned().collect(), at(ms))
        .into_iter()
        .map(|(change, port)| (change, port.port))
        .collect()
}

#[test]
fn a_port_opens_with_its_first_address_and_closes_with_its_last() {
    let mut table = Table::new(policy());
    let (a, b) = (on(3000, "127.0.0.1", 1), on(3000, "::1", 2));
    assert_eq!(step(&mut table, &[a], &[], 0), [(PortChange::Opened, 3000)]);
    assert_eq!(
        step(&mut table, &[a, b], &[], 1),
        [(PortChange::Changed, 3000)]
    );
    assert_eq!(table.snapshot().ports.len(), 2);
    assert_eq!(
        step(&mut table, &[b], &[], 2),
        [(PortChange::Changed, 3000)]
    );
    assert_eq!(step(&mut table, &[], &[], 3), [(PortChange::Closed, 3000)]);
    assert!(table.snapshot().ports.is_empty());
}

#[test]
fn our_ports_never_show_and_ephemeral_ones_only_when_named() {
    let mut table = Table::new(policy());
    let scan = [
        on(3001, "127.0.0.1", 1),
        on(8080, "::", 2),
        on(40000, "127.0.0.1", 3),
    ];
    assert_eq!(step(&mut table, &scan, &[], 0), []);
    let snapshot = table.snapshot();
    assert!(!snapshot.targets.contains_key(&8080));
    assert!(snapshot.targets.contains_key(&40000), "reachable by number");
    let changes = table.named(40000);
    assert_eq!(changes[0].0, PortChange::Opened);
    assert_eq!(
        table.snapshot().ports[0].preview,
        "https://40000-x.example/"
    );
}

#[test]
fn the_proxy_stays_with_its_choice_until_that_closes() {
    let mut table = Table::new(policy());
    let (v6, v4) = (on(3000, "::1", 1), on(3000, "127.0.0.1", 2));
    let dialled = |table: &Table| table.snapshot().targets[&3000].server.addresses[0].to_string();
    step(&mut table, &[v6], &[], 0);
    assert_eq!(dialled(&table), "[::1]:3000");
    step(&mut table, &[v6, v4], &[], 1);
    assert_eq!(dialled(&table), "[::1]:3000", "v4 came later");
    step(&mut table, &[v4], &[], 2);
    assert_eq!(dialled(&table), "127.0.0.1:3000");
    step(&mut table, &[], &[], 3);
    assert!(
        table.snapshot().targets[&3000].server.addresses.is_empty(),
        "known, but down"
    );
    step(&mut table, &[v6, v4], &[], 4);
    assert_eq!(
        dialled(&table),
        "127.0.0.1:3000",
        "both at once: v4 loopback"
    );
}

#[test]
fn several_sockets_on_one_address_are_one_entry() {
    let mut table = Table::new(policy());
    let scan: Vec<_> = (1..=4).map(|inode| on(3000, "0.0.0.0", inode)).collect();
    step(&mut table, &scan, &[(2, owner(7, "node a"))], 0);
    let ports = table.snapshot().ports;
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0].process.as_ref().unwrap().pid, 7);
    assert!(ports[0].exposed);
    // One worker less is no news.
    assert_eq!(step(&mut table, &scan[1..], &[], 5), []);
    assert_eq!(table.snapshot().ports[0].since, at(0));
}

#[test]
fn a_restart_keeps_the_share_and_a_takeover_does_not() {
    let mut table = Table::new(policy());
    let shared = owner(7, "node app.js");
    step(
        &mut table,
        &[on(3000, "127.0.0.1", 1)],
        &[(1, shared.clone())],
        0,
    );
    table.confirmed(3000);
    let program = table.snapshot().targets[&3000].server.program;

    let restarted = Owner {
        start: 99,
        ..owner(8, "node app.js")
    };
    step(
        &mut table,
        &[on(3000, "127.0.0.1", 2)],
        &[(2, restarted)],
        1,
    );
    assert_eq!(table.snapshot().targets[&3000].server.program, program);
    assert!(!table.snapshot().ports[0].taken_over);

    step(
        &mut table,
        &[on(3000, "127.0.0.1", 3)],
        &[(3, owner(9, "node other.js"))],
        2,
    );
    assert_ne!(table.snapshot().targets[&3000].server.program, program);
    assert!(table.snapshot().ports[0].taken_over);
    let mut by_other_user = on(3000, "127.0.0.1", 4);
    by_other_user.uid = 0;
    step(&mut table, &[by_other_user], &[(4, shared)], 3);
    assert!(table.snapshot().ports[0].taken_over);
    assert_eq!(table.confirmed(3000)[0].0, PortChange::Changed);
    assert!(!table.snapshot().ports[0].taken_over);
}

#[test]
fn what_a_request_showed_outranks_a_guess_until_another_program_comes() {
    let mut table = Table::new(policy());
    step(
        &mut table,
        &[on(3000, "127.0.0.1", 1)],
        &[(1, owner(7, "node app.js"))],
        0,
    );
    assert_eq!(table.snapshot().ports[0].http, None);
    let changes = table.observed(3000, true);
    assert_eq!(
        (changes[0].0, changes[0].1.http),
        (PortChange::Changed, Some(true))
    );
    step(
        &mut table,
        &[on(3000, "127.0.0.1", 2)],
        &[(2, owner(8, "redis-server *:3000"))],
        1,
    );
    assert_eq!(table.snapshot().ports[0].http, Some(false));
}

#[test]
fn the_default_is_the_agents_first_http_port_and_stays() {
    let mut table = Table::new(policy());
    let mut foreign = on(4000, "127.0.0.1", 1);
    foreign.uid = 0;
    step(&mut table, &[foreign, on(5432, "127.0.0.1", 2)], &[], 0);
    assert_eq!(
        table.snapshot().default,
        None,
        "neither another user's nor a database"
    );
    step(&mut table, &[foreign, on(5000, "127.0.0.1", 3)], &[], 1);
    assert_eq!(table.snapshot().default, Some(5000));
    step(
        &mut table,
        &[on(5000, "127.0.0.1", 3), on(3000, "127.0.0.1", 4)],
        &[],
        2,
    );
    assert_eq!(table.snapshot().default, Some(5000));
    step(&mut table, &[], &[], 3);
    assert_eq!(table.snapshot().default, Some(5000), "down, but known");
    step(&mut table, &[on(3000, "127.0.0.1", 5)], &[], 4);
    assert_eq!(table.snapshot().default, Some(3000));
}

#[test]
fn closed_ports_are_forgotten_oldest_first() {
    let mut table = Table::new(policy());
    for port in 0..u16::try_from(MAX_CLOSED).unwrap() + 2 {
        step(
            &mut table,
            &[on(1000 + port, "127.0.0.1", u64::from(port) + 1)],
            &[],
            0,
        );
    }
    step(&mut table, &[], &[], 0);
    let targets = table.snapshot().targets;
    assert_eq!(targets.len(), MAX_CLOSED);
    assert!(
        !targets.contains_key(&1000) && !targets.contains_key(&1001) && targets.contains_key(&1002)
    );
}

#[test]
fn only_sockets_not_seen_before_are_attributed() {
    let mut table = Table::new(policy());
    let (a, b) = (on(3000, "127.0.0.1", 1), on(4000, "127.0.0.1", 2));
    assert_eq!(table.unattributed(&[a, on(8080, "::", 9)]), [(1, AGENT)]);
    step(&mut table, &[a], &[], 0);
    assert_eq!(table.unattributed(&[a, b]), [(2, AGENT)]);
    assert!(table.is_same(&[a]));
    step(&mut table, &[a], &[(1, owner(7, "x"))], 1);
    assert_eq!(table.orphaned(|_, _| true), []);
    assert_eq!(table.orphaned(|pid, _| pid != 7), [(1, AGENT)]);
}

proptest! {
    /// Whoever follows the changes has the same list as whoever reads it.
    #[test]
    fn changes_add_up_to_the_list(
        scans in proptest::collection::vec(
            proptest::collection::btree_map((0u16..6, 0usize..3), 1u64..5, 0..8), 1..20)
    ) {
        let addresses = ["127.0.0.1", "::1", "0.0.0.0"];
        let mut table = Table::new(policy());
        let mut followed: BTreeMap<u16, Port> = BTreeMap::new();
        for (turn, scan) in scans.into_iter().enumerate() {
            let mut listeners: Vec<Listener> = scan
                .into_iter()
                .map(|((port, address), inode)| on(3000 + port, addresses[address], inode * 100 + u64::from(port)))
                .collect();
            listeners.sort_unstable();
            for (change, port) in table.scanned(listeners, HashMap::new(), at(i64::try_from(turn).unwrap())) {
                let before = match change {
                    PortChange::Closed => followed.remove(&port.port),
                    _ => followed.insert(port.port, port),
                };
                prop_assert_eq!(before.is_some(), change != PortChange::Opened);
            }
            let mut list: BTreeMap<u16, Port> = BTreeMap::new();
            for port in table.snapshot().ports {
                list.entry(port.port).or_insert(port);
            }
            prop_assert_eq!(&followed, &list);
        }
    }
}
