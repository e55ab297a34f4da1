//! The sessions: `main` and those beside it, started or taken up.

use super::*;

pub(super) async fn agents(
    grounds: &Grounds,
    settings: &Settings,
    git: Git,
    environment: Environment,
    attached: Option<String>,
    mut left: Processes,
    provider: Reaching,
) -> Result<(), BootError> {
    let life = grounds.started_ms;
    let runs = left.sessions.contains_key(MAIN);
    let main = setup::main_record(&grounds.paths, settings, life, runs)?;
    let task = sessions::Task {
        environment: environment.for_terminal().into_pairs(),
        setup: setup::setup(grounds, settings, &main),
        configuration: Arc::new(settings.configuration.clone()),
    };
    let setup = task.setup.clone();
    let ground = Arc::new(Ground {
        sessions: grounds.sessions.clone(),
        board: grounds.board.clone(),
        keeper: grounds.keeper.clone(),
        helper: grounds.helper.clone(),
        git,
        terminals: grounds.terminals.clone(),
        spending: grounds.spending.clone(),
        paths: grounds.paths.clone(),
        user: grounds.identity.credentials(),
        written: grounds.written.clone(),
        task: Mutex::new(Arc::new(task)),
        no_new_privs: settings.no_new_privs,
        agent: settings.agent.kind,
        mode: settings.agent.mode,
        life,
        ended: grounds.ended.clone(),
        ports: grounds.ports.clone(),
    });
    grounds.sessions.open(ground.clone());
    grounds.shells.open_on(ground.clone());
    let adopted = left.adopt(MAIN);
    let inbox = grounds.sessions.register(MAIN);
    let plan = Plan {
        setup: setup.clone(),
        record: main,
        prompt: attached::first_prompt(settings, attached),
    };
    if adopted.is_none() {
        // The nearer mistake is told first.
        sessions::check(&ground, &plan)?;
        provider.await.unwrap_or(Ok(()))?;
    }
    if !runs && left.sessions.is_empty() {
        let mut wanted = vec![(plan.record.agent, setup.clone())];
        let beside = records(&grounds.paths, life).into_iter();
        let beside = beside.filter(|record| !sessions::is_main(&record.id));
        wanted.extend(beside.map(|record| (record.agent, record.setup(&setup))));
        old::agents_files(grounds, &wanted).await;
    }
    sessions::start(&ground, plan, adopted, inbox)
        .wait()
        .await?;
    let beside = records(&grounds.paths, life)
        .into_iter()
        .filter(|record| !sessions::is_main(&record.id));
    for record in beside {
        let adopted = left.adopt(&record.id);
        let inbox = grounds.sessions.register(&record.id);
        let id = record.id.clone();
        let plan = Plan {
            setup: record.setup(&setup),
            record,
            prompt: None,
        };
        let started = sessions::start(&ground, plan, adopted, inbox);
        if let Err(error) = started.wait().await {
            tracing::error!(session = id, %error, "the session cannot go on");
        }
    }
    grounds.sessions.settle();
    for session in left.sessions.keys() {
        tracing::error!(
            session,
            "an agent without a readable record goes on unwatched"
        );
    }
    // Their agent is gone, and its next run starts its own.
    left.others = std::mem::take(&mut left.companions)
        .into_values()
        .flatten()
        .collect();
    left.end_others().await;
    Ok(())
}

/// Lets the agents of a supervisor before call their models. To be done before the generation proxy is served: an agent
/// whose stream was cut asks again at once, and takes the refusal of its token for the end of its login.
pub fn admit(paths: &Paths, settings: &Settings, spending: &Spending, life: u64) {
    for record in records(paths, life) {
        let provider = match &record.chosen {
            Some(chosen) => chosen.provider,
            None => setup::provider(settings),
        };
        spending.admit(&record, provider);
    }
}

/// Records of the sessions that belong to this life of the container, by id.
pub(super) fn records(paths: &Paths, life: u64) -> Vec<Record> {
    let entries = match std::fs::read_dir(paths.sessions()) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, "the sessions' records cannot be listed");
            return Vec::new();
        }
    };
    let read = |entry: std::fs::DirEntry| match Record::read(&entry.path()) {
        Ok(record) => record,
        Err(error) => {
            tracing::error!(path = %entry.path().display(), %error, "a session's record cannot be read");
            None
        }
    };
    let mut records: Vec<Record> = entries
        .filter_map(Result::ok)
        .filter_map(read)
        .filter(|record| record.life == life)
        .collect();
    records.sort_by(|one, other| one.id.cmp(&other.id));
    records
}
