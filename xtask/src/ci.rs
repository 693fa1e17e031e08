//! What a CI system is told of a run, out of the summary that every run ends with: a JUnit file, annotations on the
//! lines of a pull request, and the summary of a job.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::summary::Summary;
use verdict::Case;

mod github;
mod junit;
mod verdict;

/// Where a CI system wants to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ci {
    /// The file of `--junit`.
    pub junit: Option<PathBuf>,
    /// Whether lines on stderr become annotations: GitHub's `GITHUB_ACTIONS`.
    pub annotates: bool,
    /// The file whose Markdown is shown with the job: GitHub's `GITHUB_STEP_SUMMARY`.
    pub summary: Option<PathBuf>,
}

impl Ci {
    /// As this process was started.
    pub fn of_environment(junit: Option<PathBuf>) -> Ci {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Ci {
            junit,
            annotates: variable("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
            summary: variable("GITHUB_STEP_SUMMARY").map(PathBuf::from),
        }
    }

    /// Tells it of a run that has ended; gives back the lines that are to be printed for it.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn tell(&self, summary: &Summary) -> Result<Vec<String>> {
        let cases = Case::all(summary);
        if let Some(path) = &self.junit {
            let write = || -> Result<()> {
                std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
                Ok(std::fs::write(path, junit::document(summary, &cases))?)
            };
            write().with_context(|| format!("writing the JUnit file {}", path.display()))?;
        }
        if let Some(path) = &self.summary {
            let append = || -> std::io::Result<()> {
                let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
                file.write_all(github::markdown(summary, &cases).as_bytes())
            };
            append().with_context(|| format!("writing the job's summary {}", path.display()))?;
        }
        Ok(if self.annotates { github::annotation(summary).into_iter().collect() } else { Vec::new() })
    }
}
