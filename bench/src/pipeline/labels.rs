//! Labels for the benchmark: entries, routes and packets of the label cases.

use dataplane::tables::Writer;
use southbound::{
    IlmSpec, IpPrefix, Label, LabelOperation, LabelSpaceId, LabelStack, LabelVia, NextHop, Nhlfe, PopClass,
    PortId, PortRole, PortSpec, Rejection, RouteSpec, TtlModel, Update, VrfId, XdpPreference,
};

use super::{Case, Kind};

/// The least label of a case; as many follow as it has.
const FIRST_LABEL: u32 = 1000;
/// Tables that the popped packets are spread over, where there are as many labels.
const TABLES: u32 = 1000;

/// Whether a case is one of labels.
pub(super) const fn is_labelled(kind: Kind) -> bool {
    matches!(kind, Kind::LabelSwap | Kind::LabelPush | Kind::LabelPop)
}

/// The label cases: one label, and a hundred thousand in an order that no cache foresees.
pub(super) fn cases() -> impl Iterator<Item = Case> {
    [Kind::LabelSwap, Kind::LabelPush, Kind::LabelPop]
        .into_iter()
        .flat_map(|kind| {
            [1, 100_000].map(|labels| Case {
                kind,
                algorithm: None,
                size_bytes: 64,
                sas: labels,
            })
        })
}

/// The label of a number; numbers follow each other, labels do not.
fn label_of(case: &Case, number: u32) -> u32 {
    FIRST_LABEL + (u64::from(number) * 48_271 % u64::from(case.sas.max(1))) as u32
}

fn label(value: u32) -> Label {
    Label::new(value).unwrap_or(Label::MAX)
}

/// The far address that the number's packets go to.
pub(super) fn far_number(case: &Case, number: u32) -> u32 {
    label_of(case, number) - FIRST_LABEL
}

/// Puts a label entry of the case's before the IP packet of a frame.
pub(super) fn put_label(case: &Case, number: u32, frame: &mut Vec<u8>) {
    if case.kind == Kind::LabelPush {
        return;
    }
    let entry = (label_of(case, number) << 12 | 0x1ff).to_be_bytes();
    frame.splice(14..14, entry);
    if let Some(ether_type) = frame.get_mut(12..14) {
        ether_type.copy_from_slice(&[0x88, 0x47]);
    }
}

/// What the case's packets need: the port with labels, entries or routes.
pub(super) fn set_up(
    writer: &mut Writer,
    case: &Case,
    (lan, wan): (PortId, PortId),
    far: [u8; 4],
) -> Result<(), Rejection> {
    if !is_labelled(case.kind) {
        return Ok(());
    }
    for (id, role) in [(lan, PortRole::Protected), (wan, PortRole::Internet)] {
        writer.apply(
            1,
            Update::PutPort(PortSpec {
                id,
                interface: format!("port{}", id.0),
                role,
                vrf: VrfId::MAIN,
                xdp: XdpPreference::Auto,
                require_zero_copy: false,
                mpls: Some(LabelSpaceId::PLATFORM),
            }),
        )?;
    }
    let via = LabelVia::Port {
        port: wan,
        gateway: far.into(),
    };
    let hop = |labels: &[Label]| Nhlfe::new(LabelStack::new(labels).unwrap_or_default(), via);
    for number in 0..case.sas {
        let value = FIRST_LABEL + number;
        let operation = match case.kind {
            Kind::LabelPush => {
                let address = (0x0a80_0000 + number).to_be_bytes();
                writer.apply(
                    1,
                    Update::PutRoute(RouteSpec {
                        vrf: VrfId::MAIN,
                        prefix: IpPrefix::host(address.into()),
                        next_hops: vec![NextHop::Labelled(hop(&[label(16), label(value)]))],
                        weights: Vec::new(),
                    }),
                )?;
                continue;
            }
            Kind::LabelPop => LabelOperation::PopAndLookup(VrfId(1 + number % TABLES)),
            _ => LabelOperation::Forward {
                next_hops: vec![hop(&[label(value + 200_000)])],
                weights: Vec::new(),
            },
        };
        writer.apply(
            1,
            Update::PutIlm(IlmSpec {
                space: LabelSpaceId::PLATFORM,
                label: label(value),
                operation,
                ttl: TtlModel::Uniform,
                class: PopClass::Keep,
            }),
        )?;
    }
    if case.kind == Kind::LabelPop
        && let Ok(prefix) = IpPrefix::new([10, 128, 0, 0].into(), 9)
    {
        for vrf in 1..=TABLES.min(case.sas) {
            writer.apply(
                1,
                Update::PutRoute(RouteSpec {
                    vrf: VrfId(vrf),
                    prefix,
                    next_hops: vec![NextHop::Port {
                        port: wan,
                        gateway: Some(far.into()),
                    }],
                    weights: Vec::new(),
                }),
            )?;
        }
    }
    Ok(())
}
