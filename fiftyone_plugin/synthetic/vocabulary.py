"""The words and pictures of the synthetic world: which emoji make which class, and which classes training never sees.

Knows nothing of pixels: the pictures lie in the atlas (`sprites`), in the order of this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

__all__ = ["SpriteClass", "class_named", "sprite_classes"]

_EMOJI = {
    "animal": """
        1F411:sheep/lamb 1F415+1F9AE+1F436:dog/puppy 1F408+1F431:cat/kitten 1F40E+1F434:horse/pony 1F404+1F42E:cow
        1F416+1F437:pig 1F410:goat 1F40F:ram 1F402:ox/bull 1F403:buffalo 1F400:rat 1F401+1F42D:mouse 1F405+1F42F:tiger
        1F406:leopard 1F407+1F430:rabbit/bunny 1F409+1F432:dragon 1F40A:crocodile/alligator 1F40C:snail 1F40D:snake
        1F412+1F435:monkey 1F417:boar 1F418:elephant 1F419:octopus 1F422:turtle/tortoise 1F428:koala 1F429:poodle
        1F42A:camel 1F42B:bactrian_camel 1F438:frog/toad 1F439:hamster 1F43A:wolf 1F43B:bear 1F43C:panda
        1F43F:chipmunk/squirrel 1F980:crab 1F981:lion 1F982:scorpion 1F984:unicorn 1F987:bat 1F98A:fox 1F98C:deer
        1F98D:gorilla 1F98E:lizard 1F98F:rhinoceros/rhino 1F992:giraffe 1F993:zebra 1F994:hedgehog 1F995:brontosaurus
        1F996:tyrannosaurus 1F998:kangaroo 1F999:llama 1F99B:hippopotamus/hippo 1F99D:raccoon 1F99E:lobster 1F9A1:badger
        1F9A3:mammoth 1F9A5:sloth 1F9A6:otter 1F9A7:orangutan 1F9A8:skunk 1F9AB:beaver 1F9AC:bison 1F9AD:seal
    """,
    "animal,bird": """
        1F413:rooster 1F414:chicken/hen 1F424+1F425:chick 1F426:bird 1F427:penguin 1F983:turkey 1F985:eagle 1F986:duck
        1F989:owl 1F99A:peacock 1F99C:parrot 1F9A2:swan 1F9A4:dodo 1F9A9:flamingo 1F54A:dove
    """,
    "animal,insect": """
        1F41B:caterpillar 1F41C:ant 1F41D:bee 1F41E:ladybug 1F98B:butterfly 1F997:cricket 1F99F:mosquito 1FAB0:fly
        1FAB2:beetle 1FAB3:cockroach 1F577:spider
    """,
    "animal,fish": """
        1F41F:fish 1F420:tropical_fish 1F421:blowfish 1F42C:dolphin 1F40B+1F433:whale 1F988:shark 1F990:shrimp
        1F991:squid
    """,
    "food,fruit": """
        1F34E:red_apple 1F34F:green_apple 1F347:grapes 1F348:melon 1F349:watermelon 1F34A:orange/tangerine 1F34B:lemon
        1F34C:banana 1F34D:pineapple 1F350:pear 1F351:peach 1F352:cherries 1F353:strawberry 1F95D:kiwi 1F965:coconut
        1F96D:mango 1FAD0:blueberries 1F951:avocado
    """,
    "food,vegetable": """
        1F345:tomato 1F346:eggplant 1F33D:corn 1F336:hot_pepper 1F952:cucumber 1F954:potato 1F955:carrot 1F966:broccoli
        1F9C4:garlic 1F9C5:onion 1FAD1:bell_pepper 1F96C:cabbage 1F344:mushroom
    """,
    "food": """
        1F32D:hot_dog 1F32E:taco 1F32F:burrito 1F330:chestnut 1F354:hamburger/burger 1F355:pizza 1F356:meat
        1F357:chicken_leg 1F359:rice_ball 1F35E:bread/toast 1F35F:french_fries 1F363:sushi 1F366:ice_cream 1F369:donut
        1F36A:cookie 1F36B:chocolate 1F36C:candy 1F36D:lollipop 1F36E:pudding 1F36F:honey 1F370:cake 1F382:birthday_cake
        1F9C1:cupcake 1F967:pie 1F968:pretzel 1F96A:sandwich 1F950:croissant 1F953:bacon 1F956:baguette 1F957:salad
        1F95A:egg 1F95C:peanuts 1F95E:pancakes 1F95F:dumpling 1F960:fortune_cookie 1F969:steak 1F96F:bagel 1F9C0:cheese
        1F9C7:waffle 1F9C8:butter 1F37F:popcorn 1F96B:canned_food 1F35D:spaghetti
    """,
    "drink": """
        1F377:wine_glass 1F378:cocktail 1F37A:beer 1F37C:baby_bottle 1F37E:champagne_bottle 1F95B:milk 1F964:soda_cup
        1F9C3:juice_box 1F9CB:bubble_tea 2615:coffee 1FAD6:teapot
    """,
    "vehicle": """
        1F697+1F698:car 1F695+1F696:taxi 1F693+1F694:police_car 1F699:suv 1F3CE:race_car 1F68C+1F68D:bus
        1F68E:trolleybus 1F690:minibus 1F691:ambulance 1F692:fire_truck 1F69A:delivery_truck/truck 1F69B:lorry
        1F69C:tractor 1F6FB:pickup_truck 1F3CD:motorcycle/motorbike 1F6F5:motor_scooter 1F6F4:kick_scooter
        1F6B2:bicycle/bike 1F6FA:rickshaw 1F682:steam_train 1F683:railway_car 1F686:train 1F687:metro 1F68B:tram
        1F69D:monorail 1F684+1F685:bullet_train 1F681:helicopter 2708+1F6E9:airplane/plane 1F680:rocket 1F6F8:ufo
        1F6A2:ship 1F6A4:speedboat 26F5:sailboat 1F6F6:canoe 1F6E5:motorboat 26F4:ferry 1F6F7:sled 1F6F9:skateboard
        1F6D2:shopping_cart
    """,
    "plant,tree": "1F332:pine_tree 1F333:tree 1F334:palm_tree 1F384:christmas_tree",
    "plant,flower": """
        1F337:tulip 1F339:rose 1F33A:hibiscus 1F33B:sunflower 1F33C:daisy 1F338:cherry_blossom 1F490:bouquet
    """,
    "plant": """
        1F335:cactus 1F331:seedling 1F340:clover 1F341:maple_leaf 1F342:fallen_leaf 1FAB4:potted_plant 1F33E:rice_plant
    """,
    "building": """
        1F3E0:house 1F3E2:office_building 1F3E5:hospital 1F3EB:school 1F3ED:factory 1F3F0:castle 26EA:church 1F5FC:tower
        26FA:tent 1F3DF:stadium 1F6D6:hut 1F54C:mosque
    """,
    "ball": """
        26BD:soccer_ball 1F3C0:basketball 26BE:baseball 1F3BE:tennis_ball 1F3D0:volleyball 1F3C8:football
        1F3C9:rugby_ball
    """,
    "musical instrument": """
        1F3B8:guitar 1F3BA:trumpet 1F3BB:violin 1F3B7:saxophone 1F941:drum 1FA97:accordion 1FA95:banjo 1F3B9:piano
    """,
    "tool": """
        1F527:wrench 1F528:hammer 1FA93:axe 1FA9A:saw 1FA9B:screwdriver 26CF:pickaxe 1FA9C:ladder 2702:scissors
        1F50D:magnifying_glass 1F9F2:magnet 1F9F0:toolbox 1F52A:knife 1F9F9:broom 1FAA3:bucket 1F944:spoon
        1F526:flashlight
    """,
    "clothing": """
        1F455:shirt 1F456:jeans 1F457:dress 1F458:kimono 1F454:necktie 1F3A9:top_hat 1F9E2:cap 1F451:crown 1F45F:sneaker
        1F460:high_heel 1F462:boot 1F9E5:coat 1F9E6:socks 1F9E3:scarf 1F9E4:gloves 1FA73:shorts 1F459:bikini
        1F97F:flat_shoe 1F45C:handbag 1F392:backpack 1F453:glasses
    """,
    "object": """
        1F302:umbrella 1F381:gift/present 1F388:balloon 1F383:pumpkin 1F3C6:trophy 1F3C5:medal 1F3B2:dice 1F3AF:target
        1F9F8:teddy_bear 1FA81:kite 1FA80:yoyo 1F3A8:palette 1F4F7:camera 1F4F9:video_camera 1F4FA:television/tv
        1F4FB:radio 1F4F1:phone 1F4BB:laptop 1F5A8:printer 1F579:joystick 1F3AE:game_controller 1F3A7:headphones
        1F3A4:microphone 260E:telephone 1F4A1:light_bulb 1F50B:battery 1F511:key 1F512:lock 1F514:bell 1F4E6:box
        1F4DA+1F4D5:book 1F4F0:newspaper 2709:envelope 1F4EE:mailbox 270F:pencil 1F4BC:briefcase 1F9F3:suitcase
        1F4B0:money_bag 1F4B3:credit_card 1F48E:diamond 1F48D:ring 1F52C:microscope 1F52D:telescope 1F489:syringe
        1F48A:pill 1F9EA:test_tube 1F6AA:door 1FA91:chair 1F6CB:couch/sofa 1F6CF:bed 1F6BD:toilet 1F6C1:bathtub
        1FA9E:mirror 1F570:clock 23F0:alarm_clock 1F5D1:trash_can 1F56F:candle 1F3EE:lantern 1F3FA:vase 1F9FA:basket
        1F6E2:barrel 1F6E1:shield 1F3F9:bow 1F4A3:bomb 1F9E8:firecracker 1F6A6:traffic_light 1F6D1:stop_sign 2693:anchor
        26F2:fountain 1F3A0:carousel 1F3A1:ferris_wheel 1F9F1:brick 1FAA8:rock/stone 1FAB5:log/wood 1F9C2:salt_shaker
        1F9FC:soap 1F9FB:toilet_paper 1FAA5:toothbrush 26C4:snowman 1F916:robot 1F47B:ghost 1F47D:alien 1F480:skull
        1F9B4:bone 2B50:star 1FA99:coin 1F525:fire 2744:snowflake 2601:cloud 1F308:rainbow 1F30D:globe 1F319:moon
        1FA90:planet 1F30B:volcano 1F5FB:mountain 1FAB6:feather 1F578:spider_web 1F41A:shell
    """,
}
"""Hypernyms (legal prompts too, but for "object") to classes, each ``HEX[+HEX...]:name[/synonym...]``; several HEX are
several pictures of one class, and an underscore stands for a space."""

_SHAPES = (
    *("circle", "square", "triangle", "pentagon", "hexagon"),
    *("heart", "cross", "arrow", "crescent", "oval", "rectangle"),
)
"""Plain near-white shapes, which the renderer tints in any colour."""

_HELD_OUT_NAMES = """
    anchor, axe, badger, bagel, banjo, bison, broccoli, castle, chair, cricket, cupcake, ferry,
    flamingo, globe, hedgehog, hibiscus, kimono, lantern, leopard, llama, mango, milk, minibus,
    motorboat, otter, pear, rickshaw, rooster, squid, suitcase, syringe, taco, telescope, tram,
    volleyball, waffle
"""
_HELD_OUT = frozenset(name.strip() for name in _HELD_OUT_NAMES.split(","))
"""About a tenth of every family; neither picture nor word is shown in training."""


@dataclass(frozen=True, slots=True)
class SpriteClass:
    """One class of things."""

    name: str
    names: tuple[str, ...]
    """The name and its synonyms."""
    hypernyms: tuple[str, ...]
    sprite_indices: tuple[int, ...]
    """Rows of the atlas, consecutive: the pictures of this class."""
    codepoints: tuple[int, ...]
    """Unicode code points of the pictures; empty for a plain shape."""
    is_held_out: bool
    """Never shown in training."""

    @property
    def is_shape(self) -> bool:
        """A plain shape, to be tinted."""
        return not self.codepoints


@cache
def sprite_classes() -> tuple[SpriteClass, ...]:
    """All classes, in the order of the atlas."""
    classes: list[SpriteClass] = []
    next_sprite = 0
    for family, entries in _EMOJI.items():
        hypernyms = tuple(h for h in family.split(",") if h != "object")
        for entry in entries.split():
            code_text, name_text = entry.split(":")
            codepoints = tuple(int(code, 16) for code in code_text.split("+"))
            names = tuple(name.replace("_", " ") for name in name_text.split("/"))
            indices = tuple(range(next_sprite, next_sprite + len(codepoints)))
            classes.append(SpriteClass(names[0], names, hypernyms, indices, codepoints, names[0] in _HELD_OUT))
            next_sprite += len(codepoints)
    for shape in _SHAPES:
        classes.append(SpriteClass(shape, (shape,), ("shape",), (next_sprite,), (), False))
        next_sprite += 1
    return tuple(classes)


@cache
def class_named(name: str) -> int:
    """Index in `sprite_classes` of a class, by its name or a synonym.

    Raises:
        KeyError: The world has no such thing.
    """
    for index, entry in enumerate(sprite_classes()):
        if name in entry.names:
            return index
    raise KeyError(
        f"class {name!r}: the synthetic world has {len(sprite_classes())} others, such as sheep, dog and tree"
    )
