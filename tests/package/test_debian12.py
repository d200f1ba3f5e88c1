"""The package on Debian 12."""

from tests.package.checks import *  # noqa: F403 - the tests
from tools.package.releases import RELEASES

RELEASE = RELEASES[0]
