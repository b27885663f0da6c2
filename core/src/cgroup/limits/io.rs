//! `linux.resources.blockIO`.

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::convert::io_weight;
use super::{Writer, given, unsupported, wrong};
use crate::cgroup::location::Place;
use crate::error::Result;

const WEIGHT: &str = "/linux/resources/blockIO/weight";
const LEAF_WEIGHT: &str = "/linux/resources/blockIO/leafWeight";
const WEIGHT_DEVICE: &str = "/linux/resources/blockIO/weightDevice";

pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    let Some(block_io) = resources.block_io() else { return Ok(()) };
    let check = |weight: Option<u16>, pointer: String| match given(weight) {
        Some(weight) if !(10..=1000).contains(&weight) => {
            Err(wrong(format!("the weight {weight} is not within 10 and 1000"), pointer))
        }
        _ => Ok(()),
    };
    check(block_io.weight(), WEIGHT.to_owned())?;
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        check(device.weight(), format!("{WEIGHT_DEVICE}/{index}/weight"))?;
    }
    Ok(())
}

pub(super) fn apply(block_io: &LinuxBlockIo, writer: &mut Writer<'_>) -> Result<()> {
    if let Some(weight) = given(block_io.weight()) {
        let place = writer.place("io", "blkio", WEIGHT)?;
        set_weight(place, None, weight, WEIGHT, writer)?;
    }
    if let Some(weight) = given(block_io.leaf_weight()) {
        leaf_weight(None, weight, LEAF_WEIGHT, writer)?;
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = given(device.weight()) {
            let pointer = format!("{WEIGHT_DEVICE}/{index}/weight");
            let place = writer.place("io", "blkio", &pointer)?;
            set_weight(place, Some(&number), weight, &pointer, writer)?;
        }
        if let Some(weight) = given(device.leaf_weight()) {
            leaf_weight(
                Some(&number),
                weight,
                &format!("{WEIGHT_DEVICE}/{index}/leafWeight"),
                writer,
            )?;
        }
    }
    for (devices, field, v2, v1) in [
        (block_io.throttle_read_bps_device(), "throttleReadBpsDevice", "rbps", "read_bps"),
        (block_io.throttle_write_bps_device(), "throttleWriteBpsDevice", "wbps", "write_bps"),
        (block_io.throttle_read_iops_device(), "throttleReadIOPSDevice", "riops", "read_iops"),
        (block_io.throttle_write_iops_device(), "throttleWriteIOPSDevice", "wiops", "write_iops"),
    ] {
        for (index, device) in devices.iter().flatten().enumerate() {
            let pointer = format!("/linux/resources/blockIO/{field}/{index}/rate");
            let place = writer.place("io", "blkio", &pointer)?;
            throttle(place, device, (v2, v1), &pointer, writer)?;
        }
    }
    Ok(())
}

/// The weight of one device, or the default one. BFQ's own file comes first: where that is the
/// scheduler, the general one has no effect, or is not there at all.
fn set_weight(
    place: &Place,
    device: Option<&str>,
    weight: u16,
    pointer: &str,
    writer: &mut Writer<'_>,
) -> Result<()> {
    let line = |weight: u64| match device {
        Some(device) => format!("{device} {weight}"),
        None => weight.to_string(),
    };
    let plain = line(u64::from(weight));
    let files = match (place.unified, device) {
        (true, _) => [("io.bfq.weight", plain), ("io.weight", line(io_weight(weight)))],
        (false, None) => [("blkio.weight", plain.clone()), ("blkio.bfq.weight", plain)],
        (false, Some(_)) => {
            [("blkio.weight_device", plain.clone()), ("blkio.bfq.weight_device", plain)]
        }
    };
    let [(first, first_value), (second, second_value)] = files;
    match writer.try_put(place, first, &first_value) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            writer.put(place, second, &second_value, pointer)
        }
        Err(error) => Err(writer.failed(place, first, &first_value, pointer, &error)),
    }
}

fn leaf_weight(
    device: Option<&str>,
    weight: u16,
    pointer: &str,
    writer: &mut Writer<'_>,
) -> Result<()> {
    let place = writer.place("io", "blkio", pointer)?;
    if place.unified {
        return Err(unsupported("blockIO.leafWeight needs cgroup v1".to_owned()).at(pointer));
    }
    match device {
        None => writer.put(place, "blkio.leaf_weight", &weight.to_string(), pointer),
        Some(device) => {
            writer.put(place, "blkio.leaf_weight_device", &format!("{device} {weight}"), pointer)
        }
    }
}

/// A rate of 0 is no limit, in both versions.
fn throttle(
    place: &Place,
    device: &LinuxThrottleDevice,
    (v2, v1): (&str, &str),
    pointer: &str,
    writer: &mut Writer<'_>,
) -> Result<()> {
    let (major, minor, rate) = (device.major(), device.minor(), device.rate());
    if !place.unified {
        let line = format!("{major}:{minor} {rate}");
        return writer.put(place, &format!("blkio.throttle.{v1}_device"), &line, pointer);
    }
    let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
    writer.put(place, "io.max", &format!("{major}:{minor} {v2}={rate}"), pointer)
}
