"""Says whether a bundle's model is one for the plugins, and whether its engines got them."""

import step_plugins

from step.bundles.build_process import PluginsRefusedError
from step.bundles.engines import EngineSet
from step.bundles.graph_spec import BACKBONE, DETECT, FUSED
from step.bundles.manifest import Manifest


def check_plugin_limits(manifest: Manifest) -> None:
    """Refuses a model that is larger than the kernels are made for.

    Raises:
        PluginsRefusedError: the operator, the value and the limit.
    """
    config, thresholds = manifest.config, manifest.thresholds
    try:
        if config.pool_mode == "align":
            step_plugins.roi_align.check_limits(pool_size=config.pool_size, max_cells=config.feature_size)
        step_plugins.class_nms.check_limits(
            boxes=len(manifest.anchors),
            score_threshold=thresholds.score_threshold,
            iou_threshold=thresholds.nms_iou,
        )
    except step_plugins.PluginError as error:
        raise PluginsRefusedError(str(error)) from error


def count_operators(graph: str, manifest: Manifest) -> int:
    """Counts the custom operators of a graph: RoI align in every step, NMS in the detection."""
    poolings = int(manifest.config.pool_mode == "align")
    if graph == FUSED:
        return poolings * manifest.num_steps + 1
    return {BACKBONE: 0, DETECT: 1}.get(graph, poolings)


def find_missing_plugins(engines: EngineSet, manifest: Manifest) -> str | None:
    """Returns what to say if an engine has fewer plugins than its graph has operators; None if it has them all."""
    wanted = {graph: count_operators(graph, manifest) for graph in engines.engines}
    for graph, record in engines.engines.items():
        found = sum(count for kind, count in record.layers.items() if kind.startswith("PLUGIN"))
        if found < wanted[graph]:
            return (
                f"{engines.options.library} {engines.version} took {found} of the {wanted[graph]} operators of {graph} "
                "as plugins; a bundle exported with --no-plugins has none to take"
            )
    return None
