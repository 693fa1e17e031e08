//! Values walked by what the schema says of them: which fields one sets, what two differ in, one merged into another,
//! and one without some of its fields. Each walk takes time in proportion to its values. Source: `typed` of
//! sigs.k8s.io/structured-merge-diff.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use crate::fields::{self, FieldSet};
use crate::kind::{Kind, Merge};
use crate::presence;
use crate::schema::{self, Path};

/// The half of an object that a request writes: its status, or all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Spec,
    Status,
}

impl Half {
    pub(crate) fn of(subresource: Option<&str>) -> Half {
        if subresource == Some("status") { Half::Status } else { Half::Spec }
    }

    /// Can a writer of this half own the field?
    fn owns(self, field: &str) -> bool {
        match field {
            "apiVersion" | "kind" => false,
            "metadata" => true,
            "status" => self == Half::Status,
            _ => self == Half::Spec,
        }
    }

    /// Does an applied field get to the object?
    fn merges(self, field: &str) -> bool {
        self.owns(field) && (field != "metadata" || self == Half::Spec)
    }
}

/// Metadata nobody owns.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
];

/// What one object has that another has not.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) added: FieldSet,
}

impl Comparison {
    pub(crate) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// What is new or other than it was.
    pub(crate) fn changed(&self) -> FieldSet {
        let mut changed = self.modified.clone();
        changed.add(self.added.clone());
        changed
    }

    fn add_below(&mut self, step: &str, below: Comparison) {
        self.removed.add_below(step.to_owned(), below.removed);
        self.modified.add_below(step.to_owned(), below.modified);
        self.added.add_below(step.to_owned(), below.added);
    }
}

/// The fields that an object sets, as an applied configuration owns them.
pub(crate) fn fields(kind: &Kind, object: &Value, half: Half) -> FieldSet {
    let mut walk = Walk { kind, half, path: Path::default() };
    walk.fields(object)
}

/// What a writer changes who makes `new` of `old`; without `old`, of an object that says nothing.
pub(crate) fn compare(kind: &Kind, old: Option<&Value>, new: &Value, half: Half) -> Comparison {
    let blank = presence::blank(kind);
    let mut walk = Walk { kind, half, path: Path::default() };
    walk.compare(Some(&blank), old, Some(new))
}

/// Merges a configuration into an object.
pub(crate) fn merge(kind: &Kind, object: &mut Value, config: &Value, half: Half) {
    let mut walk = Walk { kind, half, path: Path::default() };
    walk.merge(object, config);
}

/// Takes fields away.
pub(crate) fn remove(kind: &Kind, object: &mut Value, gone: &FieldSet) {
    // Nobody's set has fields that are not of its half.
    let mut walk = Walk { kind, half: Half::Spec, path: Path::default() };
    walk.remove(object, gone);
}

/// Where a list names the same item twice, as errors of applying say it.
pub(crate) fn duplicate(kind: &Kind, object: &Value) -> Option<String> {
    let mut walk = Walk { kind, half: Half::Spec, path: Path::default() };
    walk.duplicate(object, &mut String::new())
}

struct Walk<'k> {
    kind: &'k Kind,
    half: Half,
    path: Path,
}

/// How the values at a place are walked.
enum Shape {
    /// As one: nobody owns parts of it.
    Leaf,
    Map,
    Keyed(&'static [&'static str]),
    Set,
}

impl Walk<'_> {
    fn shape(&self, value: &Value) -> Shape {
        match value {
            Value::Object(_) => match schema::map(&self.path) {
                Merge::Atomic => Shape::Leaf,
                _ => Shape::Map,
            },
            Value::Array(_) => match schema::list(self.kind, &self.path) {
                Merge::Keyed(keys) => Shape::Keyed(keys),
                Merge::Set => Shape::Set,
                Merge::Atomic | Merge::Granular => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    /// Does the field of the map at this place count?
    fn counts(&self, field: &str) -> bool {
        match self.path.fields() {
            [] => self.half.owns(field),
            [metadata] if metadata == "metadata" => !UNOWNED.contains(&field),
            _ => true,
        }
    }

    /// Walks on below a field.
    fn below<T>(&mut self, field: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(field);
        let result = walk(self);
        self.path.pop();
        result
    }

    fn fields(&mut self, value: &Value) -> FieldSet {
        let mut set = FieldSet::default();
        match (self.shape(value), value) {
            (Shape::Map, Value::Object(fields)) if !fields.is_empty() => {
                for (field, value) in fields {
                    if self.counts(field) {
                        let below = self.below(field, |walk| walk.fields(value));
                        set.add_below(format!("f:{field}"), below);
                    }
                }
            }
            (Shape::Keyed(keys), Value::Array(items)) => {
                for item in items {
                    let mut below = self.fields(item);
                    below.add_here();
                    set.add_below(key_step(item, keys), below);
                }
            }
            (Shape::Set, Value::Array(items)) => {
                for item in items {
                    set.add_below(value_step(item), FieldSet::here());
                }
            }
            _ => set.add_here(),
        }
        set
    }

    /// `blank` is what stands at this place of an object that says nothing.
    fn compare(&mut self, blank: Option<&Value>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
        let (old, new) = (old.or(blank), new.or(blank));
        let mut found = Comparison::default();
        match (old, new) {
            (None, Some(_)) => found.added.add_here(),
            (Some(_), None) => found.removed.add_here(),
            _ => {}
        }
        match self.shape_of_both(old, new) {
            Shape::Leaf => {
                if old.is_some() && new.is_some() && old != new {
                    found.modified.add_here();
                }
            }
            Shape::Map => {
                let maps = [blank, old, new].map(|value| value.and_then(Value::as_object));
                let names: BTreeSet<&String> = maps.iter().flatten().flat_map(|map| map.keys()).collect();
                for name in names.into_iter().filter(|name| self.counts(name)).collect::<Vec<_>>() {
                    let [blank, old, new] = maps.map(|map| map.and_then(|map| map.get(name)));
                    let below = self.below(name, |walk| walk.compare(blank, old, new));
                    found.add_below(&format!("f:{name}"), below);
                }
            }
            Shape::Keyed(keys) => {
                let step = |item: &Value| key_step(item, keys);
                self.compare_items(&Items::of(old, step), &Items::of(new, step), &mut found);
            }
            Shape::Set => {
                self.compare_items(&Items::of(old, value_step), &Items::of(new, value_step), &mut found);
            }
        }
        found
    }

    /// Two values are walked in parts where one of them has parts and the other is absent or of the same shape.
    fn shape_of_both(&self, old: Option<&Value>, new: Option<&Value>) -> Shape {
        let [old, new] = [old, new].map(|value| value.filter(|value| !value.is_null()));
        match (old, new) {
            _ if old.is_none_or(is_empty) && new.is_none_or(is_empty) => Shape::Leaf,
            (Some(one), None) | (None, Some(one)) => self.shape(one),
            (Some(old), Some(new)) if std::mem::discriminant(old) == std::mem::discriminant(new) => {
                self.shape(new)
            }
            _ => Shape::Leaf,
        }
    }

    fn compare_items(&mut self, old: &Items<'_>, new: &Items<'_>, found: &mut Comparison) {
        let steps: BTreeSet<&String> = old.first.keys().chain(new.first.keys()).collect();
        for step in steps {
            let [in_old, in_new] = [old, new].map(|items| items.first.get(step).copied());
            // An item that is there more than once has no fields that could be told apart.
            let below = match (old.twice.contains_key(step), new.twice.contains_key(step)) {
                (false, false) => self.compare(None, in_old, in_new),
                (true, true) => {
                    let mut below = Comparison::default();
                    if (in_old, old.twice.get(step)) != (in_new, new.twice.get(step)) {
                        below.modified.add_here();
                    }
                    below
                }
                (true, false) => {
                    let mut below = self.compare(None, None, in_new.or(in_old));
                    below.removed.add_here();
                    below
                }
                (false, true) => {
                    let mut below = self.compare(None, in_old.or(in_new), None);
                    below.added.add_here();
                    below
                }
            };
            found.add_below(step, below);
        }
    }

    fn merge(&mut self, live: &mut Value, config: &Value) {
        match (self.shape(config), config) {
            (Shape::Map, Value::Object(fields)) => {
                if !live.is_object() {
                    *live = Value::Object(Map::new());
                }
                for (field, value) in fields {
                    if self.path.fields().is_empty() && !self.half.merges(field) {
                        continue;
                    }
                    self.below(field, |walk| walk.merge(&mut live[field.as_str()], value));
                }
            }
            (Shape::Keyed(keys), Value::Array(items)) => {
                self.merge_items(live, items, |item| key_step(item, keys));
            }
            (Shape::Set, Value::Array(items)) => self.merge_items(live, items, value_step),
            // Of what has parts, saying nothing takes none away.
            (_, Value::Null) if !is_empty(live) && !matches!(self.shape(live), Shape::Leaf) => {}
            _ => *live = config.clone(),
        }
    }

    /// Items come in the order applied; those that only the live list has come before what followed them there.
    fn merge_items(&mut self, live: &mut Value, items: &[Value], step: impl Fn(&Value) -> String) {
        let old = match live.take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        let mut old: Vec<(String, Value)> = old.into_iter().map(|item| (step(&item), item)).collect();
        let new: Vec<(String, &Value)> = items.iter().map(|item| (step(item), item)).collect();
        let in_new: HashSet<&String> = new.iter().map(|(step, _)| step).collect();
        let mut in_old: HashMap<String, Value> = HashMap::new();
        for (step, item) in &mut old {
            if in_new.contains(step) {
                in_old.entry(step.clone()).or_insert_with(|| item.take());
            }
        }
        let shared: HashSet<String> = in_old.keys().cloned().collect();
        let mut next_shared =
            new.iter().map(|(step, _)| step).filter(|step| shared.contains(*step)).peekable();
        let mut done: HashSet<&String> = HashSet::new();
        let mut merged = Vec::new();
        let mut old = old.into_iter().peekable();
        for (step, item) in &new {
            // What only the live list has goes first, and what is merged elsewhere is passed over.
            while let Some((_, own)) = old.next_if(|(old, _)| {
                !in_new.contains(old)
                    || done.contains(old)
                    || old != step && next_shared.peek().is_some_and(|shared| *shared != old)
            }) {
                if !own.is_null() {
                    merged.push(own);
                }
            }
            let mut found = in_old.remove(step).unwrap_or(Value::Null);
            self.merge(&mut found, item);
            merged.push(found);
            done.insert(step);
            old.next_if(|(old, _)| old == step);
            next_shared.next_if(|shared| *shared == step);
        }
        merged.extend(old.filter(|(step, _)| !in_new.contains(step)).map(|(_, own)| own));
        *live = Value::Array(merged);
    }

    fn remove(&mut self, value: &mut Value, gone: &FieldSet) {
        match (self.shape(value), &mut *value) {
            (Shape::Map, Value::Object(fields)) => fields.retain(|field, value| {
                let Some(below) = gone.at(&format!("f:{field}")) else { return true };
                if below.has_here() {
                    return false;
                }
                self.below(field, |walk| walk.remove(value, below));
                // It is null where nothing is left of it, and not gone: somebody may own the field itself.
                if is_empty(value) {
                    *value = Value::Null;
                }
                true
            }),
            (Shape::Keyed(keys), Value::Array(items)) => items.retain_mut(|item| {
                let Some(below) = gone.at(&key_step(item, keys)) else { return true };
                if !below.has_here() {
                    self.remove(item, below);
                }
                !below.has_here()
            }),
            (Shape::Set, Value::Array(items)) => items.retain(|item| gone.at(&value_step(item)).is_none()),
            // Of what is owned as one, no part stays where one goes.
            (Shape::Leaf, value) => *value = Value::Null,
            _ => {}
        }
    }

    fn duplicate(&mut self, value: &Value, at: &mut String) -> Option<String> {
        let length = at.len();
        match (self.shape(value), value) {
            (Shape::Map, Value::Object(fields)) => {
                for (field, value) in fields {
                    at.push('.');
                    at.push_str(field);
                    let found = self.below(field, |walk| walk.duplicate(value, at));
                    at.truncate(length);
                    if found.is_some() {
                        return found;
                    }
                }
            }
            (Shape::Keyed(keys), Value::Array(items)) => {
                let mut seen = HashSet::new();
                for item in items {
                    let step = key_step(item, keys);
                    let shown = fields::show_step(&step);
                    if !seen.insert(step) {
                        return Some(format!("{at}: duplicate entries for key {shown}"));
                    }
                    at.push_str(&shown);
                    let found = self.duplicate(item, at);
                    at.truncate(length);
                    if found.is_some() {
                        return found;
                    }
                }
            }
            (Shape::Set, Value::Array(items)) => {
                let mut seen = HashSet::new();
                let twice = items.iter().map(value_step).find(|step| !seen.insert(step.clone()))?;
                return Some(format!("{at}: duplicate entries for key {}", fields::show_step(&twice)));
            }
            _ => {}
        }
        None
    }
}

/// The items of a list by their steps.
struct Items<'v> {
    first: BTreeMap<String, &'v Value>,
    /// The second and later items with one step.
    twice: BTreeMap<String, Vec<&'v Value>>,
}

impl<'v> Items<'v> {
    fn of(list: Option<&'v Value>, step: impl Fn(&Value) -> String) -> Items<'v> {
        let mut items = Items { first: BTreeMap::new(), twice: BTreeMap::new() };
        for item in list.and_then(Value::as_array).into_iter().flatten() {
            match items.first.entry(step(item)) {
                Entry::Vacant(entry) => _ = entry.insert(item),
                Entry::Occupied(entry) => items.twice.entry(entry.key().clone()).or_default().push(item),
            }
        }
        items
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// `k:{"containerPort":8000,"protocol":"TCP"}`.
pub(crate) fn key_step(item: &Value, keys: &[&str]) -> String {
    let mut fields = Map::new();
    for key in keys {
        let value = match item.get(*key) {
            Some(value) if !value.is_null() => value.clone(),
            _ => schema::key_default(key).map_or(Value::Null, Value::from),
        };
        fields.insert((*key).to_owned(), value);
    }
    format!("k:{}", Value::Object(fields))
}

/// `v:"value"`.
fn value_step(item: &Value) -> String {
    format!("v:{item}")
}
