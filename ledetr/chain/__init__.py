"""Frames in, results out: sources, threads, meters, overlay and recorder; no Qt. Decoders load when first needed."""

from ledetr.chain.pipeline import Pipeline, stream
from ledetr.chain.results import Result
from ledetr.chain.sources import FrameSource, SourceInfo, open_source, parse_source
from ledetr.chain.states import State

__all__ = ["FrameSource", "Pipeline", "Result", "SourceInfo", "State", "open_source", "parse_source", "stream"]
