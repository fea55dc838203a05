"""A whole vision-language model as LiteRT files, and a host that runs them without Keras."""

from dl_techniques.export.litert_vlm.export import export_vlm as export_vlm
from dl_techniques.export.litert_vlm.parts import write_parts as write_parts
