//! Decides without I/O whether a run may start here, which watermarks lie ahead of the boundary, and which keys a run
//! reads. `doubts.rs` decides whether clocks and server are to be doubted.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use crate::invoice::{SourceTime, Tenant};
use crate::refusal::Refusal;
use crate::run::Kind;
use crate::source::ListedTenant;
use crate::state::runs::LastKnownState;
use crate::state::stored::TenantNo;
use crate::state::tenants::KnownTenant;
use crate::state::watermarks::PullBack;
use crate::tree::mark::Mark;
use crate::window::{OpenWork, ReadFrom, Span, earlier, seconds_between};

/// What was found where a run is to start.
#[derive(Clone, Debug)]
pub struct SiteFacts<'a> {
    pub output: &'a Path,
    pub state: &'a Path,
    /// None where there is no state.
    pub last: Option<&'a LastKnownState>,
    pub mark: Option<&'a Mark>,
    pub tree: TreeUse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeUse {
    Empty,
    HasFiles,
}

/// What the operator asked for, as far as it decides whether a run may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatePolicy {
    /// Makes a state where there is none, if that is harmless.
    Ordinary,
    /// `--require-state`
    Required,
    /// `--fresh`: the old state was set aside.
    Fresh,
}

/// What a tree and its state are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Run(Kind),
    /// The script's watermarks are taken over, and with them the tree beside them.
    Import,
}

/// How a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMode {
    /// State and tree belong together.
    Continue,
    /// As before, but the state is older than the tree.
    Restored,
    /// We have not exported anything here yet.
    New,
    /// A full run takes a tree over that the state does not know.
    TakeOver,
}

/// Whether state and tree belong together. A volume that is not mounted, was rolled back or mistyped
/// must not be filled quietly, and a lost state must not be started anew without a word.
pub fn start_mode(found: &SiteFacts<'_>, purpose: Purpose, policy: StatePolicy) -> Result<StartMode, Refusal> {
    let Some(last) = found.last else {
        return match policy {
            StatePolicy::Required => Err(Refusal::StateMissing { state: found.state.to_path_buf() }),
            StatePolicy::Fresh => Ok(StartMode::New),
            StatePolicy::Ordinary => start_without_state(found, purpose),
        };
    };
    let is_marked = found.mark.is_some_and(|mark| mark.state_id == last.state_id);
    if !is_marked && last.published_run == 0 {
        // Made by a run that died before it could mark the tree.
        return if policy == StatePolicy::Fresh { Ok(StartMode::New) } else { start_without_state(found, purpose) };
    }
    last.refuse_other_tree(found.mark, found.output, found.state)?;
    let is_restored = found.mark.is_some_and(|mark| last.is_behind(mark));
    Ok(if is_restored { StartMode::Restored } else { StartMode::Continue })
}

fn start_without_state(found: &SiteFacts<'_>, purpose: Purpose) -> Result<StartMode, Refusal> {
    let (output, state) = (found.output.to_path_buf(), found.state.to_path_buf());
    let marked = found.mark.is_some_and(|mark| mark.run > 0);
    match purpose {
        // A mark says that this is not the script's tree but that of a state of ours, lost or mistyped.
        Purpose::Import if marked => Err(Refusal::MarkForeign { output, state }),
        Purpose::Import => Ok(StartMode::New),
        Purpose::Run(_) if !marked && found.tree == TreeUse::Empty => Ok(StartMode::New),
        Purpose::Run(Kind::Full) => Ok(StartMode::TakeOver),
        Purpose::Run(Kind::Incremental | Kind::Backfill | Kind::Verify) => {
            Err(Refusal::TreeWithoutState { output, state })
        }
    }
}

/// Watermarks that lie ahead of the boundary.
pub fn pull_backs(known: &[KnownTenant], boundary: &SourceTime) -> Vec<PullBack> {
    let ahead = |tenant: &KnownTenant| tenant.watermark.clone().filter(|watermark| watermark > boundary);
    known
        .iter()
        .filter_map(|tenant| ahead(tenant).map(|from| PullBack { tenant: tenant.tenant.clone(), from }))
        .collect()
}

/// The spellings of a tenant that are read together, because the source's collation calls them equal. A spelling that
/// is to be exported is a member; those that the state knows are its relatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The spelling that the source is asked for.
    pub asked: Tenant,
    /// The spellings to be exported, as far as they are known.
    pub members: Vec<Member>,
    /// Whether a spelling that turns up belongs to this run.
    pub others: OtherSpellings,
    pub newest: Option<SourceTime>,
    /// The greatest source time above the boundary, if there is one.
    pub ahead: Option<SourceTime>,
    pub keys: KeysToRead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub tenant: Tenant,
    pub watermark: Option<SourceTime>,
    pub look_back: Option<SourceTime>,
    pub newest: Option<SourceTime>,
    /// Whether work was open while its keys were read last.
    pub work_was_open: bool,
    pub read_from: Option<ReadFrom>,
    /// Its number in the state; None for one that the state does not know.
    pub number: Option<TenantNo>,
}

impl Member {
    /// A spelling that the state does not know.
    pub(super) fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            watermark: None,
            look_back: None,
            newest: None,
            work_was_open: false,
            read_from: None,
            number: None,
        }
    }

    /// By how many seconds an invoice with this source time, which no run has seen, comes late: it lies in what runs have
    /// read. None if it is not late.
    pub(super) fn late_by(&self, time: &SourceTime) -> Option<u64> {
        let watermark = self.watermark.as_ref().filter(|watermark| time <= *watermark)?;
        let is_read = self.read_from.as_ref().is_some_and(|read_from| read_from.reaches(time));
        is_read.then(|| seconds_between(time, watermark).unwrap_or_default().unsigned_abs())
    }

    fn of(known: &KnownTenant) -> Self {
        let KnownTenant { number, tenant, watermark, look_back, newest, work_was_open, read_from, .. } = known.clone();
        Self { tenant, watermark, look_back, newest, work_was_open, read_from, number: Some(number) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSpellings {
    Exported,
    /// `--tenant` names the ones to export.
    LeftOut,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysToRead {
    /// Nothing can have changed.
    None,
    /// Those with a source time in this span.
    In(Span),
}

impl KeysToRead {
    /// Whether a row with this source time is read. One without a time is read where there is no lower bound.
    pub(super) fn includes(&self, time: Option<&SourceTime>) -> bool {
        match self {
            Self::In(Span { after, upto }) => {
                let is_after = |after: &SourceTime| time.is_some_and(|time| time > after);
                let is_upto = |upto: &SourceTime| time.is_none_or(|time| time <= upto);
                after.as_ref().is_none_or(is_after) && upto.as_ref().is_none_or(is_upto)
            }
            Self::None => false,
        }
    }
}

/// What the groups of an incremental run are made from.
pub struct Incremental<'a> {
    pub known: &'a [KnownTenant],
    pub boundary: &'a SourceTime,
    pub work: &'a OpenWork,
    pub overlap: Duration,
}

impl Incremental<'_> {
    /// The keys that are read of a group: from the least look-back among its members on, without a lower bound if one
    /// of them is new or has no look-back, none if nothing can have changed.
    fn keys_to_read(&self, relatives: &[&KnownTenant], newest: Option<&SourceTime>, unknown: usize) -> KeysToRead {
        if unknown == 0 && relatives.iter().all(|tenant| self.is_quiet(tenant, newest)) {
            return KeysToRead::None;
        }
        let after = match unknown {
            0 => relatives.iter().map(|tenant| tenant.look_back.clone()).min().flatten(),
            _ => None,
        };
        KeysToRead::In(Span { after, upto: Some(self.boundary.clone()) })
    }

    /// Whether the tenant's keys need not be read: its newest source time is that of the last run and lies below the
    /// watermark minus the overlap, and no work is open now or was when its keys were read last. That work may have
    /// committed rows that are older than the newest one. Any open work counts, because an application may write source
    /// times that lie behind the server's clock.
    fn is_quiet(&self, tenant: &KnownTenant, newest: Option<&SourceTime>) -> bool {
        let (Some(watermark), Some(newest), Some(_)) = (&tenant.watermark, newest, &tenant.look_back) else {
            return false;
        };
        *self.work == OpenWork::None
            && !tenant.work_was_open
            && tenant.newest.as_ref() == Some(newest)
            && earlier(watermark, self.overlap).is_some_and(|bound| *newest < bound)
    }
}

/// The groups to read, in the order in which the source lists them.
pub fn groups(listed: &[ListedTenant], chosen: &[Tenant], known: &[KnownTenant], how: &HowToRead<'_>) -> Vec<Group> {
    let families = Families::of(known);
    let mut groups: Vec<Group> = listed.iter().map(|listed| group(listed, &families, how)).collect();
    if chosen.is_empty() {
        return groups;
    }
    let spellings = |group: &Group| group.members.iter().map(|member| member.tenant.clone()).collect::<Vec<_>>();
    let mut met: HashSet<Tenant> = groups.iter().flat_map(spellings).collect();
    for tenant in chosen {
        if !met.contains(tenant) {
            // The source lists it under a spelling that is not known to mean the same tenant, or it has no issued rows.
            let group = group(&ListedTenant::unlisted(tenant), &families, how);
            met.extend(spellings(&group));
            groups.push(group);
        }
    }
    let chosen: HashSet<&Tenant> = chosen.iter().collect();
    for group in &mut groups {
        group.members.retain(|member| chosen.contains(&member.tenant));
        group.others = OtherSpellings::LeftOut;
        // The source is asked for one that is exported, so a wrong guess about spellings costs nothing.
        if let Some(member) = group.members.first() {
            group.asked = member.tenant.clone();
        }
    }
    groups.retain(|group| !group.members.is_empty());
    groups
}

/// Which keys a run reads.
pub enum HowToRead<'a> {
    Incremental(Incremental<'a>),
    /// The same for every tenant.
    Span(Span),
}

/// The known tenants, found by their spelling and by their family.
struct Families<'a> {
    by_spelling: HashMap<&'a Tenant, i64>,
    relatives: HashMap<i64, Vec<&'a KnownTenant>>,
}

impl<'a> Families<'a> {
    fn of(known: &'a [KnownTenant]) -> Self {
        let mut relatives: HashMap<i64, Vec<&KnownTenant>> = HashMap::with_capacity(known.len());
        for tenant in known {
            relatives.entry(tenant.family).or_default().push(tenant);
        }
        Self { by_spelling: known.iter().map(|known| (&known.tenant, known.family)).collect(), relatives }
    }

    /// All known spellings of a tenant, in the order in which they became known; none of one that is unknown.
    fn relatives(&self, tenant: &Tenant) -> &[&'a KnownTenant] {
        let family = self.by_spelling.get(tenant);
        family.and_then(|family| self.relatives.get(family)).map_or(&[], Vec::as_slice)
    }
}

fn group(listed: &ListedTenant, families: &Families<'_>, how: &HowToRead<'_>) -> Group {
    let relatives = families.relatives(&listed.spelling);
    let mut members: Vec<Member> = relatives.iter().map(|known| Member::of(known)).collect();
    let unknown = usize::from(relatives.is_empty());
    if unknown == 1 {
        members.push(Member::new(listed.spelling.clone()));
    }
    let reading = match how {
        HowToRead::Incremental(incremental) => incremental.keys_to_read(relatives, listed.newest.as_ref(), unknown),
        HowToRead::Span(span) => KeysToRead::In(span.clone()),
    };
    Group {
        asked: listed.spelling.clone(),
        members,
        others: OtherSpellings::Exported,
        newest: listed.newest.clone(),
        ahead: listed.ahead.clone(),
        keys: reading,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mark::Written;

    const OVERLAP: Duration = Duration::from_secs(3600);

    fn time(text: &str) -> SourceTime {
        SourceTime::from(text)
    }

    fn tenant(name: &str, family: i64, watermark: &str, look_back: Option<&str>, newest: &str) -> KnownTenant {
        KnownTenant {
            number: TenantNo(family),
            tenant: Tenant::from(name),
            family,
            watermark: Some(time(watermark)),
            look_back: look_back.map(time),
            newest: Some(time(newest)),
            work_was_open: false,
            read_from: Some(ReadFrom::TheBeginning),
        }
    }

    fn listed(name: &str, newest: &str) -> ListedTenant {
        ListedTenant { spelling: Tenant::from(name), newest: Some(time(newest)), ahead: None }
    }

    fn plan(known: &[KnownTenant], listed: &[ListedTenant], work: &OpenWork) -> Vec<Group> {
        let boundary = time("2025-11-28 16:30:00");
        let how = Incremental { known, boundary: &boundary, work, overlap: OVERLAP };
        groups(listed, &[], known, &HowToRead::Incremental(how))
    }

    fn after(group: &Group) -> Option<&str> {
        match &group.keys {
            KeysToRead::In(span) => span.after.as_ref().map(SourceTime::as_str),
            KeysToRead::None => panic!("{group:?} is not read"),
        }
    }

    #[test]
    fn a_new_tenant_is_read_without_a_lower_bound() {
        let groups = plan(&[], &[listed("1", "2025-11-28 16:00:00")], &OpenWork::None);
        assert_eq!(after(&groups[0]), None);
    }

    #[test]
    fn a_quiet_tenant_is_not_read_at_all() {
        let known = [tenant("1", 1, "2025-11-28 15:30:00", Some("2025-11-28 11:00:00"), "2025-11-28 12:00:00")];
        let quiet = [listed("1", "2025-11-28 12:00:00")];
        assert_eq!(plan(&known, &quiet, &OpenWork::None)[0].keys, KeysToRead::None);
        let work = OpenWork::Since(time("2025-11-28 16:29:00"));
        assert_eq!(after(&plan(&known, &quiet, &work)[0]), Some("2025-11-28 11:00:00"));
        assert_eq!(after(&plan(&known, &quiet, &OpenWork::NotPermitted)[0]), Some("2025-11-28 11:00:00"));
        let busy = [listed("1", "2025-11-28 12:00:01")];
        assert_eq!(after(&plan(&known, &busy, &OpenWork::None)[0]), Some("2025-11-28 11:00:00"));
    }

    #[test]
    fn a_tenant_that_open_work_held_is_read_though_it_is_quiet_now() {
        let tenant = tenant("1", 1, "2025-11-28 15:30:00", Some("2025-11-28 11:00:00"), "2025-11-28 12:00:00");
        let known = [KnownTenant { work_was_open: true, ..tenant }];
        let quiet = [listed("1", "2025-11-28 12:00:00")];
        assert_eq!(after(&plan(&known, &quiet, &OpenWork::None)[0]), Some("2025-11-28 11:00:00"));
    }

    #[test]
    fn an_emptied_look_back_reads_everything() {
        let known = [tenant("1", 1, "2025-11-28 15:30:00", None, "2025-11-28 12:00:00")];
        assert_eq!(after(&plan(&known, &[listed("1", "2025-11-28 12:00:00")], &OpenWork::None)[0]), None);
    }

    #[test]
    fn spellings_of_one_family_are_read_from_the_least_look_back_among_them() {
        let known = [
            tenant("acme", 1, "2025-11-28 15:30:00", Some("2025-11-28 14:00:00"), "2025-11-28 15:00:00"),
            tenant("ACME", 1, "2025-11-28 15:30:00", Some("2025-11-28 07:00:00"), "2025-11-28 08:00:00"),
            tenant("other", 3, "2025-11-28 15:30:00", Some("2025-11-28 01:00:00"), "2025-11-28 02:00:00"),
        ];
        let groups = plan(&known, &[listed("ACME", "2025-11-28 16:00:00")], &OpenWork::None);
        assert_eq!(after(&groups[0]), Some("2025-11-28 07:00:00"));
        assert_eq!(groups[0].members.len(), 2);
    }

    /// Comparing each tenant with all others would take minutes here.
    #[test]
    fn a_hundred_thousand_tenants_are_planned_each_with_its_own_family() {
        let (mut known, mut there) = (Vec::new(), Vec::new());
        for n in 0..100_000 {
            let look_back = format!("2025-11-{:02} 11:00:00", 1 + n % 28);
            known.push(tenant(&n.to_string(), n, "2025-11-28 15:30:00", Some(&look_back), "2025-11-28 12:00:00"));
            there.push(listed(&n.to_string(), "2025-11-28 16:00:00"));
        }
        let boundary = time("2025-11-28 16:30:00");
        let incremental = Incremental { known: &known, boundary: &boundary, work: &OpenWork::None, overlap: OVERLAP };
        let how = HowToRead::Incremental(incremental);
        let all = groups(&there, &[], &known, &how);
        let chosen: Vec<Tenant> = known.iter().map(|known| known.tenant.clone()).collect();
        for groups in [all, groups(&there, &chosen, &known, &how)] {
            assert_eq!(groups.len(), known.len());
            for (group, known) in groups.iter().zip(&known) {
                assert_eq!((after(group), group.members.len()), (known.look_back.as_ref().map(SourceTime::as_str), 1));
            }
        }
    }

    fn last(published_run: i64, last_run: i64) -> LastKnownState {
        LastKnownState { state_id: "a".into(), published_run, last_run, ..LastKnownState::default() }
    }

    fn mark(state_id: &str, run: i64) -> Mark {
        Mark { state_id: state_id.into(), run, written: Written::Whole }
    }

    fn begin(
        last: Option<&LastKnownState>,
        mark: Option<&Mark>,
        tree: TreeUse,
        kind: Kind,
    ) -> Result<StartMode, Refusal> {
        let found = SiteFacts { output: Path::new("out"), state: Path::new("state.db"), last, mark, tree };
        start_mode(&found, Purpose::Run(kind), StatePolicy::Ordinary)
    }

    #[test]
    fn a_tree_that_is_not_the_states_own_is_refused() {
        use Kind::Incremental;
        let state = last(7, 7);
        assert_eq!(begin(Some(&state), Some(&mark("a", 7)), TreeUse::HasFiles, Incremental), Ok(StartMode::Continue));
        let missing = begin(Some(&state), None, TreeUse::Empty, Incremental);
        assert!(matches!(missing, Err(Refusal::MarkMissing { .. })), "{missing:?}");
        let foreign = begin(Some(&state), Some(&mark("b", 9)), TreeUse::HasFiles, Incremental);
        assert!(matches!(foreign, Err(Refusal::MarkForeign { .. })), "{foreign:?}");
        let old = begin(Some(&state), Some(&mark("a", 6)), TreeUse::HasFiles, Incremental);
        assert!(matches!(old, Err(Refusal::TreeRolledBack { tree_run: 6, state_run: 7, .. })), "{old:?}");
    }

    #[test]
    fn a_copy_of_the_tree_from_before_the_end_of_a_run_is_refused_once_it_has_ended() {
        let in_part = Mark { written: Written::InPart, ..mark("a", 7) };
        let go_on = |state: &LastKnownState| begin(Some(state), Some(&in_part), TreeUse::HasFiles, Kind::Incremental);
        assert_eq!(go_on(&last(7, 7)), Ok(StartMode::Continue), "the run died, and this is what it left");
        let ended = LastKnownState { published_wholly: true, ..last(7, 7) };
        assert!(matches!(go_on(&ended), Err(Refusal::TreeRolledBack { tree_run: 7, state_run: 7, .. })));
    }

    #[test]
    fn a_backup_that_was_made_in_mid_run_is_recognised_once_that_run_has_ended() {
        let open = LastKnownState { last_run_is_open: true, ..last(7, 7) };
        let whole = begin(Some(&open), Some(&mark("a", 7)), TreeUse::HasFiles, Kind::Incremental);
        assert_eq!(whole, Ok(StartMode::Restored));
        let in_part = Mark { written: Written::InPart, ..mark("a", 7) };
        let died = begin(Some(&open), Some(&in_part), TreeUse::HasFiles, Kind::Incremental);
        assert_eq!(died, Ok(StartMode::Continue));
    }

    #[test]
    fn a_restored_state_is_recognised() {
        let state = last(7, 8);
        let begun = begin(Some(&state), Some(&mark("a", 9)), TreeUse::HasFiles, Kind::Incremental);
        assert_eq!(begun, Ok(StartMode::Restored));
    }

    #[test]
    fn without_a_state_only_a_full_run_takes_files_over() {
        assert_eq!(begin(None, None, TreeUse::Empty, Kind::Incremental), Ok(StartMode::New));
        assert_eq!(begin(None, None, TreeUse::HasFiles, Kind::Full), Ok(StartMode::TakeOver));
        let refused = begin(None, None, TreeUse::HasFiles, Kind::Incremental);
        assert!(matches!(refused, Err(Refusal::TreeWithoutState { .. })), "{refused:?}");
        let refused = begin(None, Some(&mark("a", 3)), TreeUse::Empty, Kind::Incremental);
        assert!(matches!(refused, Err(Refusal::TreeWithoutState { .. })), "{refused:?}");
    }
}
