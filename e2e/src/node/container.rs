//! A Pod's container: started, watched, and started again with growing pauses when it crashes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::environment::{Environment, environment, expand};
use super::health;
use super::log::Key;
use super::plan::{Plan, Restart};
use super::program::{Launch, Running, wind_down};
use super::sandbox::Sandbox;
use super::status::{Seen, State};
use super::volume::Content;
use super::{Host, RETRY};

/// The first pause before a crashed container starts again; each is twice the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest: tests wait for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A container that has run for so long had not crashed because of how it was started.
const RAN_WELL: Duration = Duration::from_secs(60);

pub(crate) struct Container<'a> {
    pub(crate) host: &'a Host,
    pub(crate) pod: &'a Arc<Pod>,
    pub(crate) plan: &'a Plan,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) seen: &'a watch::Sender<Seen>,
    pub(crate) key: Key,
}

impl Container<'_> {
    /// Runs it until it has ended for good. Its process is in `running`, to be ended by whoever gives this up.
    pub(crate) async fn run(&self, running: &mut Option<Running>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let process = running.insert(self.start().await);
            let id = process.identity.id;
            self.seen.send_modify(|seen| seen.state = State::Running { since: process.since });
            tokio::select! {
                () = process.until_ended() => {}
                error = health::watch(&self.plan.probes, self.sandbox, id, self.seen) => {
                    crate::progress::say(format_args!("{} is started anew: {error}", self.name()));
                    wind_down(process, self.plan.ending).await;
                }
            }
            // Also after its end, for how it ended.
            let Ok(ended) = process.kill().await else { return };
            self.host.logs.close(&self.key);
            *running = None;
            let again = match self.plan.restart {
                Restart::Always => true,
                Restart::OnFailure => !ended.exit.good(),
                Restart::Never => false,
            };
            if !again {
                self.seen.send_modify(|seen| seen.end(State::Ended(ended)));
                return;
            }
            if started.elapsed() >= RAN_WELL {
                pause = FIRST_PAUSE;
            }
            let message = format!("it ended with {}; the next start is in {} ms", ended.exit.code, pause.as_millis());
            self.seen.send_if_modified(|seen| {
                seen.last = Some(ended);
                seen.wait("CrashLoopBackOff", message)
            });
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.seen.send_modify(|seen| seen.restarts += 1);
        }
    }

    /// Starts its process, as soon as everything is there.
    async fn start(&self) -> Running {
        loop {
            let environment = environment(&self.host.client, self.pod, self.plan, self.sandbox.address).await;
            let (reason, error) = match environment {
                Ok(environment) => match self.launch(&environment) {
                    Ok(running) => return running,
                    Err(error) => ("CreateContainerError", format!("{error:#}")),
                },
                Err(error) => ("CreateContainerConfigError", error),
            };
            self.seen.send_if_modified(|seen| seen.wait(reason, error));
            sleep(RETRY).await;
        }
    }

    fn launch(&self, environment: &Environment) -> Result<Running> {
        let command: Vec<String> = self.plan.command.iter().map(|text| expand(text, environment)).collect();
        let empty = |content: &Content| matches!(content, Content::Empty);
        let writable: Vec<_> = self.plan.mounts.iter().filter(|mount| empty(&mount.content)).collect();
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let launch = Launch {
            netns: &self.sandbox.netns,
            root: &self.sandbox.root(),
            command: &command,
            environment,
            privileges: &self.plan.privileges,
            writable: &writable.into_iter().map(|mount| mount.path.clone()).collect::<Vec<_>>(),
            log: self.host.logs.open(&self.key, uid, self.seen.borrow().restarts)?,
        };
        launch.start(&self.host.state, Timestamp::now())
    }

    fn name(&self) -> String {
        format!("Container {} of Pod {}/{}", self.key.container, self.key.namespace, self.key.pod)
    }
}
