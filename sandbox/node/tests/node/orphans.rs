//! The agent's program is killed with SIGKILL: nothing of its pods may be left.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{alive, cluster, log_of, pod, shell, until_dead};
use sandbox_contract::LogRequest;

const PROGRAM: &str = "NODE_TEST_PROGRAM";

/// Not a test: what the test below runs and kills, this same program with a variable set.
#[tokio::test]
async fn program_to_be_killed() {
    if std::env::var_os(PROGRAM).is_none() {
        return;
    }
    let cluster = cluster().await;
    cluster
        .ready(&pod("left", shell("trap '' TERM; sleep 1000 & echo $! $$; wait; sleep 1000"), json!({})))
        .await;
    let mut pieces = cluster.agent.logs(LogRequest { follow: true, ..log_of("left") }).await.unwrap();
    let piece = futures::StreamExt::next(&mut pieces).await.unwrap().unwrap();
    println!("\npids {}", String::from_utf8_lossy(&piece).trim());
    std::future::pending::<()>().await;
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn kill_9_leaves_no_container_behind() {
    let program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "orphans::program_to_be_killed", "--nocapture"])
        .env(PROGRAM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(program);
    let mut lines = std::io::BufReader::new(program.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.strip_prefix("pids ").map(str::to_owned)).unwrap();
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|&pid| alive(pid)));
    drop(program);
    until_dead(&pids).await;
}
