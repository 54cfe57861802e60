"""The words around digits that say whether they are somebody's phone, in the languages people write in."""

import re


def _any_of(words: str) -> str:
    """One pattern for many words; in a word, `_` stands for white space."""
    return rf"(?<!\w)(?:{'|'.join(words.split())})(?!\w)".replace("_", r"\s+")


# a phone, and nothing else has such a number
PHONE = re.compile(
    _any_of(
        r"""
        (?:tele|cell|mobile_|home_|work_)?phones? phoned phoning tel cell cellular mobile mob
        whats\s?app\w* viber telegram signal imessage facetime fax sms hotline landline dial voicemail
        extension paytm phonepe gpay venmo handy\w* rufnummer telefon\w* anruf\w* erreichbar erreichst
        ruf ring ringe ringa rings ringing t[ée]l[ée]phone\w* portable appel\w* joindre joignable
        tel[ée]fono\w* m[óo]vil celular\w* ll[áa]ma\w* ll[áa]me\w* marca bizum telefon[eo]\w* ligue?
        liga cellulare chiam\w* telefoon\w* mobiel\w* mobil\w* (?:za)?dzwo\w* kom[óo]rk\w* blik
        puhelin\w* tlf pager (?:za)?vol(?:ej|ejte|at)\w* telef[oó]n\w* soita cep ara gsm swish vipps
        m-?pesa телефон\w* звони\w* позвони\w* набер\w* τηλ\w* फोन मोबाइल هاتف טלפון
        """
    )
    + "|电话|手机|電話|携帯|전화",
    re.IGNORECASE,
)
# what people do with a phone, and with other things
CALLING = re.compile(
    _any_of(
        r"""
        calls? called calling texts? texted texting txt msg message contact reach hit_me_up hmu bel
        contacte[zr]?
        """
    ),
    re.IGNORECASE,
)
NUMBER = re.compile(
    _any_of(
        r"""
        (?:my|your|his|her|our|their|new|old|mom'?s|dad'?s|wife'?s|husband'?s|contact)_(?:new_|old_)?(?:num|digits|no\.?|\#)
        number number's
        (?:my|your|his|her)_numbers num[ée]ro n[úu]mero nummer(?:et|n)? numero číslo broj num[ăa]r\w* szám\w*
        numer numeru номер\w* numaram numara\w*
        """
    ),
    re.IGNORECASE,
)
# behind the digits: "… is my cell", "… call me"
BEHIND = re.compile(
    r"^\W{0,3}(?:(?:is|was|that'?s|it'?s|on|or|c'est|ist|es|è)\W{1,2})?"
    r"(?:(?:is\s+)?(?:my|mine|her|his|our|the|mein|meine|mon|mi|il\s+mio|mój)\s+)?"
    + _any_of(
        r"""
        phone cell mobile number call_me text_me me_liga whats\s?app call tel digits nummer num[ée]ro
        n[úu]mero
        """
    ),
    re.IGNORECASE,
)
# things that have numbers too
OF_THINGS = re.compile(
    _any_of(
        r"""
        order serial parts? model product item invoice ticket tracking reference ref account acct case
        flight isbn sku code booking confirmation version barcode upc ean imei vin patent licen[sc]e
        bug issue lotto lottery favou?rite lucky random prime zip pi ssn social_security
        social_insurance passport nhs pesel bsn cpf aadhaa?r tax steuer\w* iban card tin sin tfn vat
        roll student employee badge id constant score population views subscribers dollars pounds euros
        price costs? worth paid salary coordinates latitude longitude timestamp seed hex room
        """
    ),
    re.IGNORECASE,
)
# behind digits that count or reckon
QUANTITY = re.compile(
    r"\s*(?:[+*/×x÷=^]\s*\d|"
    + _any_of(
        r"""
        people persons dollars bucks euros? pounds usd eur gbp rupees yen miles km kilomet\w+
        met(?:er|re)s feet ft years? days hours minutes seconds times views users subscribers followers
        likes points steps characters bytes kb mb gb tons? tonnes kg lbs? calories cells stars
        inhabitants residents
        """
    )
    + ")",
    re.IGNORECASE,
)
