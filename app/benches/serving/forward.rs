//! The engines in this process, side by side with ONNX Runtime in Python.

use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use simple_model_api::{EngineKind, Library, Model};

use crate::model::model_dir;
use crate::{percentile, within};

/// Rounds, in each of which every contestant runs in turn: what else the machine does hits all of them.
const ROUNDS: usize = 20;
const RUNS: usize = 5;

/// Forward passes in milliseconds, `RUNS` at a time.
type Contestant = (&'static str, Box<dyn FnMut() -> Vec<f64>>);

pub(crate) fn forward(library: Option<&Path>) -> bool {
    let mut good = true;
    println!("{:8} {:24} {:>9} {:>9} {:>16}", "threads", "engine", "p50 ms", "best ms", "ratio to Python");
    for threads in [1, 2] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut contestants: Vec<Contestant> = vec![];
        match Python::start(threads) {
            Some(mut python) => contestants.push(("onnxruntime in Python", Box::new(move || python.run()))),
            None => println!("python3 has no onnxruntime: nothing to compare with"),
        }
        let mut add = |name, kind, library: Library| {
            let mut model = Model::open(&model_dir(), kind, &library, threads).unwrap();
            let run = move || {
                let time = |_| {
                    let tensor = vec![0.0; 3 * 224 * 224];
                    let start = Instant::now();
                    model.run(tensor).unwrap();
                    start.elapsed().as_secs_f64() * 1e3
                };
                (0..RUNS).map(time).collect()
            };
            contestants.push((name, Box::new(run)));
        };
        add("rten", EngineKind::Rten, Library::Unloadable);
        if let Some(library) = library {
            add("onnxruntime", EngineKind::OnnxRuntime, Library::At(library.to_owned()));
        }

        let mut times: Vec<Vec<Vec<f64>>> = vec![vec![]; contestants.len()];
        for _ in 0..ROUNDS {
            for ((_, run), times) in contestants.iter_mut().zip(&mut times) {
                times.push(run());
            }
        }
        for ((name, _), own) in contestants.iter().zip(&times) {
            let all: Vec<f64> = own.iter().flatten().copied().collect();
            // Of the best of each round: the least disturbed run.
            let best = |runs: &Vec<f64>| percentile(runs, 0.0);
            let ratios: Vec<f64> =
                own.iter().zip(&times[0]).map(|(own, base)| best(own) / best(base)).collect();
            let ratio = percentile(&ratios, 50.0);
            println!(
                "{threads:<8} {name:24} {:>9.1} {:>9.1} {ratio:>16.2}",
                percentile(&all, 50.0),
                best(&all)
            );
            if *name == "onnxruntime" && threads.get() == 1 && contestants[0].0 != *name {
                good &= within("onnxruntime, 1 thread, to Python", ratio, 1.05, "x");
            }
        }
    }
    good
}

struct Python {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start(threads: NonZeroUsize) -> Option<Python> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/serving/peer.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(model_dir().join("model.onnx"))
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut python = Python { answers: BufReader::new(child.stdout.take()?), child };
        python.answer().map(|_version| python)
    }

    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.answers.read_line(&mut line).ok()? > 0).then_some(line)
    }

    fn run(&mut self) -> Vec<f64> {
        writeln!(self.child.stdin.as_mut().unwrap(), "{RUNS}").unwrap();
        self.answer().unwrap().split_whitespace().map(|time| time.parse().unwrap()).collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Decode, resize, crop, normalise.
pub(crate) fn prepare() -> bool {
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/pictures");
    let preset = app_pictures::Preset {
        resize: 256,
        crop: 224,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    println!("{:28} {:>9} {:>9}", "picture", "p50 ms", "p99 ms");
    for (name, count) in [
        ("jpeg-420.jpg", 300),
        ("jpeg-progressive.jpg", 100),
        ("png-palette.png", 100),
        ("webp-lossy.webp", 100),
        ("limit-5000x5000.png", 5),
    ] {
        let file = std::fs::read(PathBuf::from(&pictures).join(name)).unwrap();
        let time = |_| {
            let start = Instant::now();
            app_pictures::prepare(&file, &preset).unwrap();
            start.elapsed().as_secs_f64() * 1e3
        };
        let times: Vec<f64> = (0..count).map(time).collect();
        println!("{name:28} {:>9.2} {:>9.2}", percentile(&times, 50.0), percentile(&times, 99.0));
    }
    true
}
