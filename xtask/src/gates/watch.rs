//! How gates see: watches of several kinds, merged into one snapshot that is judged after each change.
//!
//! A watch that breaks is resumed where it was; one that can't be resumed, because the API server is away or has
//! forgotten the version (410), lists anew. Meanwhile the gate stays closed and says so.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::future::FutureExt as _;
use futures::stream::{BoxStream, SelectAll, Stream, StreamExt as _};
use jiff::SignedDuration;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Verdict;
use super::clock::{self, Clock};
use crate::failure::reason;
use crate::kubernetes::{Api, typed};

/// Objects of one kind in one namespace, by name where nothing else is said.
pub type Objects<K> = BTreeMap<String, K>;
/// Under which key an object is kept; none for one that is not.
type Key = dyn Fn(&DynamicObject) -> Option<String> + Send;

/// A list that takes longer than this is no answer.
const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// Waits between tries grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// A connection that died in silence is noticed this much later: the server ends each watch after it.
const WATCH_SECONDS: u32 = 60;

type Change<S> = Box<dyn FnOnce(&mut S) + Send>;

enum News<S> {
    /// All of it, as it is now.
    Synced(Change<S>),
    /// One change.
    Changed(Change<S>),
    /// What was seen may be out of date until the next [`News::Synced`].
    Lost(Lost),
}

/// Why nothing is seen.
struct Lost {
    why: String,
    /// The credentials may not see it, which is not for time to change.
    forbidden: bool,
}

/// One source of a snapshot `S`.
pub struct Feed<S> {
    what: String,
    required: bool,
    hidden: Option<fn(&mut S)>,
    news: BoxStream<'static, News<S>>,
}

impl<S: 'static> Feed<S> {
    /// Watches objects of one kind into the snapshot's `slot`.
    pub fn watch<K>(api: Api<K>, selection: watcher::Config, slot: fn(&mut S) -> &mut Objects<K>) -> Feed<S>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        Feed::watch_by(api, selection, |object| Some(object.name_any()), slot)
    }

    /// [`Feed::watch`], by another key than the name. What has none is not kept, and not even read: for what the API
    /// can't select by.
    pub fn watch_by<K>(
        api: Api<K>,
        selection: watcher::Config,
        key: impl Fn(&DynamicObject) -> Option<String> + Send + 'static,
        slot: fn(&mut S) -> &mut Objects<K>,
    ) -> Feed<S>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let what = K::plural(&()).into_owned();
        let source = Source {
            api: api.untyped(),
            selection: selection.timeout(WATCH_SECONDS),
            key: Box::new(key),
            events: None,
            list: Some(Objects::new()),
            failures: 0,
        };
        let news = futures::stream::unfold(source, move |mut source| async move {
            let news = match source.next().await {
                Seen::All(all) => News::Synced(Box::new(move |s: &mut S| *slot(s) = all) as Change<S>),
                Seen::One(key, object) => {
                    News::Changed(Box::new(move |s: &mut S| drop(slot(s).insert(key, *object))) as _)
                }
                Seen::Gone(key) => News::Changed(Box::new(move |s: &mut S| drop(slot(s).remove(&key))) as _),
                Seen::Lost(lost) => News::Lost(lost),
            };
            Some((news, source))
        });
        Feed { what, required: true, hidden: None, news: news.boxed() }
    }

    /// Watches the one object of that name.
    pub fn watch_one<K>(api: Api<K>, name: &str, slot: fn(&mut S) -> &mut Objects<K>) -> Feed<S>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        Feed::watch(api, watcher::Config::default().fields(&format!("metadata.name={name}")), slot)
    }

    /// Asks now and then what can't be watched; with its answer, `ask` says how long to pause before the next.
    pub fn poll<V, Asked>(what: &str, ask: impl Fn() -> Asked + Send + 'static, set: fn(&mut S, V)) -> Feed<S>
    where
        V: Send + 'static,
        Asked: Future<Output = (V, Duration)> + Send,
    {
        let news = futures::stream::unfold((ask, None), move |(ask, pause)| async move {
            tokio::time::sleep(pause.unwrap_or_default()).await;
            let (value, next) = ask().await;
            let change: Change<S> = Box::new(move |s: &mut S| set(s, value));
            let news = if pause.is_none() { News::Synced(change) } else { News::Changed(change) };
            Some((news, (ask, Some(next))))
        });
        Feed { what: what.to_owned(), required: true, hidden: None, news: news.boxed() }
    }

    /// Where the credentials may not see it, the snapshot is told so, and the gate does without.
    #[must_use]
    pub fn unless_forbidden(self, hidden: fn(&mut S)) -> Feed<S> {
        Feed { hidden: Some(hidden), ..self }
    }

    /// Explains more where it is at hand; the gate opens without it.
    #[must_use]
    pub fn optional(self) -> Feed<S> {
        Feed { required: false, ..self }
    }
}

/// Verdicts on a snapshot as its feeds change it: the first when all were listed, then one after each change and at
/// each moment that `judge` asked its clock for.
pub fn verdicts<S, T, J>(
    client: &Client,
    snapshot: S,
    feeds: Vec<Feed<S>>,
    judge: J,
) -> impl Stream<Item = Result<Verdict<T>>> + use<S, T, J>
where
    S: 'static,
    J: FnMut(&mut S, &Clock) -> Verdict<T>,
{
    let desk = Desk::new(client.clone(), snapshot, feeds, judge);
    futures::stream::unfold(desk, |mut desk| async move {
        let verdict = desk.next().await;
        Some((Ok(verdict), desk))
    })
}

/// One look, which fails where [`verdicts`] would wait for the API server.
///
/// # Errors
/// When something can't be listed, with the API server's reason.
pub async fn look<S, T>(
    client: &Client,
    snapshot: S,
    feeds: Vec<Feed<S>>,
    judge: impl FnMut(&mut S, &Clock) -> Verdict<T>,
) -> Result<Verdict<T>>
where
    S: 'static,
{
    let mut desk = Desk::new(client.clone(), snapshot, feeds, judge);
    let listed = async {
        while !desk.is_synced() {
            desk.take_news().await;
            if let Some(away) = desk.away() {
                return Err(anyhow!("{away}"));
            }
        }
        Ok(())
    };
    match tokio::time::timeout(Duration::from_secs(5), listed).await {
        Ok(listed) => listed?,
        Err(_) => return Err(anyhow!("no answer from the API server within 5 s")),
    }
    desk.offset = clock::offset(client).await;
    Ok(desk.judge())
}

/// Where a feed stands.
struct Standing<S> {
    what: String,
    required: bool,
    hidden: Option<fn(&mut S)>,
    synced: bool,
    lost: Option<String>,
}

/// Gathers the news of all feeds and judges.
struct Desk<S, J> {
    client: Client,
    news: SelectAll<BoxStream<'static, (usize, News<S>)>>,
    feeds: Vec<Standing<S>>,
    snapshot: S,
    judge: J,
    offset: Option<SignedDuration>,
    recheck: Option<Instant>,
    /// What the last judgement waited for, to be said beside a lost connection.
    waits_for: Option<String>,
    was_away: bool,
}

impl<S: 'static, J> Desk<S, J> {
    fn new(client: Client, snapshot: S, feeds: Vec<Feed<S>>, judge: J) -> Desk<S, J> {
        let mut news = SelectAll::new();
        let mut standings = Vec::new();
        for (index, feed) in feeds.into_iter().enumerate() {
            let Feed { what, required, hidden, news: of_feed } = feed;
            news.push(of_feed.map(move |news| (index, news)).boxed());
            standings.push(Standing { what, required, hidden, synced: false, lost: None });
        }
        Desk {
            client,
            news,
            feeds: standings,
            snapshot,
            judge,
            offset: None,
            recheck: None,
            waits_for: None,
            // So that the first look reads the API server's clock.
            was_away: true,
        }
    }

    async fn next<T>(&mut self) -> Verdict<T>
    where
        J: FnMut(&mut S, &Clock) -> Verdict<T>,
    {
        loop {
            self.take_news().await;
            if let Some(away) = self.away() {
                self.was_away = true;
                let before =
                    self.waits_for.as_ref().map(|line| format!("; before that: {line}")).unwrap_or_default();
                return Verdict::Closed(format!("{away}{before}"));
            }
            if self.is_synced() {
                if std::mem::take(&mut self.was_away) {
                    self.offset = clock::offset(&self.client).await;
                }
                return self.judge();
            }
        }
    }

    /// Waits for news, or for the moment to look again, and takes all the news there are.
    async fn take_news(&mut self) {
        let recheck = self.recheck;
        let due = async {
            match recheck {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((index, news)) = self.news.next() => self.take(index, news),
            () = due => self.recheck = None,
        }
        while let Some(Some((index, news))) = self.news.next().now_or_never() {
            self.take(index, news);
        }
    }

    fn take(&mut self, index: usize, news: News<S>) {
        let feed = &mut self.feeds[index];
        match news {
            News::Synced(change) => {
                (feed.synced, feed.lost) = (true, None);
                change(&mut self.snapshot);
            }
            News::Changed(change) => change(&mut self.snapshot),
            News::Lost(Lost { why, forbidden }) => match feed.hidden.filter(|_| forbidden) {
                Some(hidden) => {
                    (feed.synced, feed.lost) = (true, None);
                    hidden(&mut self.snapshot);
                }
                None => feed.lost = Some(why),
            },
        }
    }

    fn is_synced(&self) -> bool {
        self.feeds.iter().all(|feed| feed.synced || !feed.required)
    }

    /// Which feed is out of touch, and why.
    fn away(&self) -> Option<String> {
        let feed = self.feeds.iter().find(|feed| feed.required && feed.lost.is_some())?;
        Some(format!("the API server does not answer for {}: {}", feed.what, feed.lost.as_deref()?))
    }

    fn judge<T>(&mut self) -> Verdict<T>
    where
        J: FnMut(&mut S, &Clock) -> Verdict<T>,
    {
        let clock = Clock::now_with(self.offset);
        let verdict = (self.judge)(&mut self.snapshot, &clock);
        // A timer may ring a moment early by the other clock.
        self.recheck = clock.next().map(|wait| Instant::now() + wait + Duration::from_millis(1));
        if let Verdict::Closed(line) | Verdict::Suspect(line) = &verdict {
            self.waits_for = Some(line.clone());
        }
        verdict
    }
}

/// What a watch of one kind saw.
enum Seen<K> {
    All(Objects<K>),
    One(String, Box<K>),
    Gone(String),
    Lost(Lost),
}

/// A watch of one kind that never ends.
struct Source<K> {
    api: kube::Api<DynamicObject>,
    selection: watcher::Config,
    key: Box<Key>,
    events: Option<BoxStream<'static, watcher::Result<Event<DynamicObject>>>>,
    /// The list that is being taken in, until it is whole.
    list: Option<Objects<K>>,
    failures: u32,
}

impl<K> Source<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    async fn next(&mut self) -> Seen<K> {
        loop {
            if let Some(tries) = self.failures.checked_sub(1) {
                let (first, most) = BACKOFF;
                tokio::time::sleep(first.saturating_mul(1 << tries.min(8)).min(most)).await;
            }
            let events = self.events.get_or_insert_with(|| {
                self.list = Some(Objects::new());
                watcher::watcher(self.api.clone(), self.selection.clone()).boxed()
            });
            let event = if self.list.is_some() {
                match tokio::time::timeout(LIST_PATIENCE, events.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        return self.lost(format!("no answer within {} s", LIST_PATIENCE.as_secs()), false);
                    }
                }
            } else {
                events.next().await
            };
            match event {
                Some(Ok(Event::Init)) => self.list = Some(Objects::new()),
                Some(Ok(Event::InitApply(object))) => {
                    let Some(key) = (self.key)(&object) else { continue };
                    match typed::<K>(object) {
                        Ok(object) => drop(self.list.get_or_insert_default().insert(key, object)),
                        Err(error) => return self.lost(error.to_string(), false),
                    }
                }
                Some(Ok(Event::InitDone)) => {
                    self.failures = 0;
                    return Seen::All(self.list.take().unwrap_or_default());
                }
                Some(Ok(Event::Apply(object))) => {
                    self.failures = 0;
                    let Some(key) = (self.key)(&object) else { continue };
                    match typed::<K>(object) {
                        Ok(object) => return Seen::One(key, Box::new(object)),
                        Err(error) => return self.lost(error.to_string(), false),
                    }
                }
                Some(Ok(Event::Delete(object))) => {
                    self.failures = 0;
                    let Some(key) = (self.key)(&object) else { continue };
                    return Seen::Gone(key);
                }
                // It resumes by itself, or lists anew where the version is gone.
                Some(Err(watcher::Error::WatchFailed(_) | watcher::Error::WatchError(_))) => {
                    self.failures += 1;
                }
                // It would try the same again; a list finds out what was missed meanwhile.
                Some(Err(error)) => return self.lost(reason(&error), is_forbidden(&error)),
                None => return self.lost("the watch ended".to_owned(), false),
            }
        }
    }

    fn lost(&mut self, why: String, forbidden: bool) -> Seen<K> {
        self.failures = self.failures.saturating_add(1);
        self.events = None;
        Seen::Lost(Lost { why, forbidden })
    }
}

/// Whether the API server has understood and refused, for want of a right.
fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error)) = error else { return false };
    matches!(error, kube::Error::Api(status) if status.code == 403)
}
