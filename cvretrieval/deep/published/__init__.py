"""Published retrieval models as fitted estimators, from the files that their authors give out."""

from cvretrieval.deep.published.cirtorch import load_cirtorch
from cvretrieval.deep.published.deep_image_retrieval import load_dir
from cvretrieval.deep.published.netvlad import load_netvlad

__all__ = ["load_cirtorch", "load_dir", "load_netvlad"]
