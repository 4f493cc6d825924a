"""LunarLander's world as machine code: Box2D's step for one lander on its legs above the moon.

An altered version of Box2D 2.3, rewritten for three bodies, two joints and eleven edges that
never move, with what cannot happen between them left out. All that is left computes as Box2D does:
float32, each operation in its place, so that every bit is the same. (But for the sign of a zero,
which reaches no result: a velocity or position is never -0, and to such a one it adds nothing.)
Docstrings name the function of Box2D's whose work each does.

Bodies are 0 for the lander, 1 and 2 for its legs; joint j holds leg j + 1. Bodies collide with
edges only, so contact `body * EDGES + edge` is all there can be between the two. Positions and
velocities are (x, y, angle), in metres, seconds and radians. A frame is b2Transform: the origin of
a body's shape (x, y), sine and cosine of its angle. The moon's own is the identity.

The velocity iterations, nine tenths of Box2D's time, hardly ever come to rest before their end. So
`WIDTH` landers share them, each in a column of a batch, on which the vector unit works. It takes
contacts of one point of a leg, too; the few others are solved one by one.
"""

# Box2D: Copyright (c) 2006-2013 Erin Catto, http://www.box2d.org
#
# This software is provided 'as-is', without any express or implied warranty. In no event will the
# authors be held liable for any damages arising from the use of this software. Permission is
# granted to anyone to use this software for any purpose, including commercial applications, and to
# alter it and redistribute it freely, subject to the following restrictions:
# 1. The origin of this software must not be misrepresented; you must not claim that you wrote the
#    original software. If you use this software in a product, an acknowledgment in the product
#    documentation would be appreciated but is not required.
# 2. Altered source versions must be plainly marked as such, and must not be misrepresented as being
#    the original software.
# 3. This notice may not be removed or altered from any source distribution.

from srghn.evaluation.backends.lunar_lander.kernel.lander import begin, fly
from srghn.evaluation.backends.lunar_lander.kernel.records import (
    BATCH,
    CONSTRAINT,
    CONTACT,
    CONTACTS,
    LANE,
    ROOM,
    WIDTH,
    WORLD,
)

__all__ = [
    "BATCH", "CONSTRAINT", "CONTACT", "CONTACTS", "LANE", "ROOM", "WIDTH", "WORLD", "begin", "fly",
]  # fmt: skip
