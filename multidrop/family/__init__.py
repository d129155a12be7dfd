"""The dropout family: each member written once, as a value that is the same in every framework.

    md.apply(md.family.DropBlock(p=0.1, block_size=7), X, key)

runs one on a tensor of any framework. A member is a frozen dataclass in a file of its own; a line here makes it known.
"""

from . import schedules as schedules
from ._member import MEMBERS as MEMBERS
from ._member import Draw as Draw
from ._member import MaskMember as MaskMember
from ._member import Member as Member
from ._member import checked as checked
from ._member import extent as extent
from ._member import of_text as of_text
from ._member import rate as rate
from ._member import run as run
from .alpha_dropout import AlphaDropout as AlphaDropout
from .concrete_dropout import ConcreteDropout as ConcreteDropout
from .drop_block import DropBlock as DropBlock
from .drop_connect import DropConnect as DropConnect
from .drop_path import DropPath as DropPath
from .dropout import Dropout as Dropout
from .embedding_dropout import EmbeddingDropout as EmbeddingDropout
from .feature_alpha_dropout import FeatureAlphaDropout as FeatureAlphaDropout
from .gaussian_dropout import GaussianDropout as GaussianDropout
from .gaussian_noise import GaussianNoise as GaussianNoise
from .locked_dropout import LockedDropout as LockedDropout
from .spatial_dropout import SpatialDropout as SpatialDropout
from .variable_dropout import VariableDropout as VariableDropout
